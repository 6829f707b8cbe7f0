"""A request as data."""

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptorRateLimitOverride
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.limiter.metadata import request_metadata
from extauth.limiter.modes import GlobalModes
from extauth.rules.masking import Masking
from tests.limiter.service import Service, descriptor

SHARED = "descriptors: [{key: a, value: x*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 1}}]"


def test_the_tier_is_added_to_a_copy() -> None:
    described = {"domain": "d", "descriptors": []}
    assert request_metadata(described, (), (), "gold").request == {"domain": "d", "descriptors": [], "tier": "gold"}
    assert request_metadata(described, (), (), None).request == described == {"domain": "d", "descriptors": []}


@pytest.mark.parametrize(
    ("secret", "asked", "shown"),
    [
        ("", "plan=gold", "plan=gold"),
        ("", "token=sesame", f"token={Masking().mask('sesame')}"),
        ("", "token=token", "token=token"),
        ("", "route/*=route/*", "route/*=route/*"),
        ("secret: ['route/*']\n", "route/*=route/*", f"route/*={Masking().mask('route/*')}"),
    ],
)
async def test_secret_values_are_masked(secret: str, asked: str, shown: str) -> None:
    answer = await Service(f"{secret}descriptors: []", GlobalModes(metadata=True)).ask(asked)
    assert answer.dynamic_metadata is not None
    assert answer.dynamic_metadata.to_dict()["descriptors"] == [{"entries": [shown]}]


@pytest.mark.parametrize("metadata", [False, True])
def test_a_plan_has_the_secret_keys_of_its_domain(metadata: bool) -> None:
    planner = Service("secret: [ip]\n" + SHARED, GlobalModes(metadata=metadata)).planner
    template = planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor("a=x1")]))).template
    assert [template.secret.covers(key, "value") for key in ("ip", "a")] == [True, False]


@pytest.mark.parametrize(
    ("limit", "shown"),
    [(None, "a=x*"), (RateLimitDescriptorRateLimitOverride(requests_per_unit=1, unit=RateLimitUnit.DAY), "a=x1")],
)
def test_a_counter_is_described_by_the_pattern_whose_values_share_it(
    limit: RateLimitDescriptorRateLimitOverride | None, shown: str
) -> None:
    """Which those of a limit that requests bring with them do not."""
    planner = Service(SHARED).planner
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor("a=x1", limit=limit)]))
    (name,) = planner.plan(message).names
    assert planner.describe_counter(message, name) == shown
