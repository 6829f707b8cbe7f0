"""Limits that descriptors bring with them, in place of the file's."""

from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.errors import InvalidRequestError
from extauth.limiter.modes import GlobalModes
from tests.limiter.service import Service, descriptor, rule
from tests.support.clock import SECOND
from tests.support.codes import OK, OVER_LIMIT


async def test_an_override_counts_apart_and_as_the_file_says() -> None:
    service = Service("algorithm: gcra\ndescriptors:" + rule("a", 1))
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=2, unit=RateLimitUnit.MINUTE)
    own = descriptor("a=1", limit=override)
    assert await service.codes(own, calls=3) == [OK, OK, OVER_LIMIT]
    assert await service.codes("a=1", calls=2) == [OK, OVER_LIMIT]
    assert await service.codes(descriptor("unmatched=1", limit=override), calls=3) == [OK, OK, OVER_LIMIT]
    hourly = RateLimitDescriptorRateLimitOverride(requests_per_unit=1, unit=RateLimitUnit.HOUR)
    assert await service.codes(descriptor("a=1", limit=hourly), calls=2) == [OK, OVER_LIMIT], (
        "another window, another count"
    )
    service.clock.sleep(30 * SECOND)
    assert await service.codes(own, calls=2) == [OK, OVER_LIMIT]


async def test_an_override_of_an_unknown_unit_is_invalid() -> None:
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=2)
    with pytest.raises(InvalidRequestError, match="unknown unit 0 in a descriptor's limit"):
        await Service("").ask(descriptor("a=1", limit=override))


def override(requests: int, unit: RateLimitUnit = RateLimitUnit.HOUR, **more: Any) -> RateLimitDescriptor:  # noqa: ANN401
    limit = RateLimitDescriptorRateLimitOverride(requests_per_unit=requests, unit=unit)
    return descriptor("a=1", limit=limit, **more)


def numbers(response: RateLimitResponse) -> list[tuple[int, int, int]]:
    """By status: its code, its limit and what is left of it."""
    limits = [status.current_limit.requests_per_unit if status.current_limit else 0 for status in response.statuses]
    return [(int(s.code), limit, s.limit_remaining) for s, limit in zip(response.statuses, limits, strict=True)]


ALGORITHMS = pytest.mark.parametrize(
    "text",
    [
        f"algorithm: {algorithm}\ncount_denied: {count_denied}\ndescriptors: []"
        for algorithm in ("fixed_window", "gcra", "sliding_window")
        for count_denied in ("true", "false")
    ],
    ids=lambda text: text.replace("\n", " "),
)


@ALGORITHMS
async def test_an_override_whose_number_moves_keeps_what_is_used(text: str) -> None:
    service = Service(text)
    assert await service.codes(override(3), calls=3) == [OK] * 3
    assert numbers(await service.ask(override(100))) == [(OK, 100, 96)]
    assert numbers(await service.ask(override(50))) == [(OK, 50, 45)]
    assert await service.codes(override(3), override(4), calls=1) == [OVER_LIMIT]
    assert numbers(await service.ask(override(3, RateLimitUnit.DAY))) == [(OK, 3, 2)], "another unit counts apart"


@ALGORITHMS
async def test_two_numbers_of_one_unit_in_a_request_both_hold(text: str) -> None:
    for many_first in (True, False):
        service = Service(text)
        both = [override(10), override(3, hits_addend=0)][:: 1 if many_first else -1]
        left = [numbers(await service.ask(*both))[:: 1 if many_first else -1] for _ in range(3)]
        assert left == [[(OK, 10, 10 - used), (OK, 3, 3 - used)] for used in (1, 2, 3)]
        denied = await service.ask(*both)
        assert int(denied.overall_code) == OVER_LIMIT
        ten, three = numbers(denied)[:: 1 if many_first else -1]
        assert ten == (OK, 10, 6 if "count_denied: true" in text else 7)
        assert three == (OVER_LIMIT, 3, 0)


@ALGORITHMS
async def test_hits_of_two_numbers_of_one_unit_add(text: str) -> None:
    service = Service(text)
    assert numbers(await service.ask(override(10), override(4))) == [(OK, 10, 8), (OK, 4, 2)], "each brings one"
    assert numbers(await service.ask(override(10, hits_addend=2), override(4, hits_addend=0))) == [
        (OK, 10, 6),
        (OK, 4, 0),
    ]
    back = override(10, hits_addend=3, is_negative_hits=True)
    assert numbers(await service.ask(back, override(4))) == [(OK, 10, 8), (OK, 4, 2)], "of three one is taken again"
    assert numbers(await service.ask(override(10), override(4), override(10, RateLimitUnit.DAY))) == [
        (OK, 10, 6),
        (OK, 4, 0),
        (OK, 10, 9),
    ]
    assert numbers(await service.ask(override(4), override(9), override(10)))[0] == (OVER_LIMIT, 4, 0)


@ALGORITHMS
async def test_quotas_of_two_numbers_are_used_up_when_the_larger_is(text: str) -> None:
    service = Service(text, GlobalModes(quota_mode=True))
    codes = await service.codes(override(2), override(6, hits_addend=0), calls=8)
    assert codes == [OK] * 6 + [OVER_LIMIT] * 2


@ALGORITHMS
async def test_two_numbers_in_shadow_mode_are_told_and_deny_nothing(text: str) -> None:
    service = Service(text, GlobalModes(shadow_mode=True))
    told = [await service.ask(override(2), override(4, hits_addend=0)) for _ in range(6)]
    assert [int(response.overall_code) for response in told] == [OK] * 6
    assert [numbers(response) for response in told] == [
        [(OK if used <= 2 else OVER_LIMIT, 2, max(2 - used, 0)), (OK if used <= 4 else OVER_LIMIT, 4, max(4 - used, 0))]
        for used in range(1, 7)
    ]
