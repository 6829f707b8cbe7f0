"""A request as data."""

import pytest

from extauth.limiter.metadata import request_metadata
from extauth.limiter.modes import GlobalModes
from extauth.rules.masking import Masking
from tests.limiter.service import Service


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
