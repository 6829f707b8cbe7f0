"""A request as data."""

from extauth.limiter.metadata import request_metadata


def test_the_tier_is_added_to_a_copy() -> None:
    described = {"domain": "d", "descriptors": []}
    assert request_metadata(described, (), (), "gold").request == {"domain": "d", "descriptors": [], "tier": "gold"}
    assert request_metadata(described, (), (), None).request == described == {"domain": "d", "descriptors": []}
