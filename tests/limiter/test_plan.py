"""What a request of several limits means: from rules and a request to the answer, on counters in memory."""

import json
from collections.abc import Sequence

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.errors import StoreError
from extauth.limiter.counters import Group, TakeResult
from extauth.limiter.modes import GlobalModes
from extauth.rules.model import OnStoreFailure
from tests.limiter.service import Service, descriptor, rule
from tests.support.clock import MINUTE, SECOND
from tests.support.codes import OK, OVER_LIMIT


async def test_an_unlimited_descriptor_has_all_remaining_and_may_replace() -> None:
    service = Service(
        "descriptors:"
        "\n- {key: vip, rate_limit: {unlimited: true, name: vip, replaces: [{name: small}]}}"
        + rule("a", 0, limit=", name: small")
    )
    assert await service.codes("a=1", calls=1) == [OVER_LIMIT]
    response = await service.ask("vip=1", "a=1")
    assert int(response.overall_code) == OK
    assert [(int(s.code), s.current_limit, s.limit_remaining) for s in response.statuses] == [
        (OK, None, 2**32 - 1),
        (OK, None, 0),
    ]


async def test_shadow_mode_tells_ok_and_counts() -> None:
    service = Service("descriptors:" + rule("a", 2, ", shadow_mode: true") + rule("b", 3))
    assert await service.codes("a=1", calls=4) == [OK] * 4
    response = await service.ask("a=1", "b=1")
    told = [(int(s.code), s.limit_remaining) for s in response.statuses]
    assert told == [(OK, 0), (OK, 2)], "as if it were not there, but for what is left"


async def test_shadow_mode_for_all() -> None:
    service = Service("descriptors:" + rule("a", 1), GlobalModes(shadow_mode=True))
    responses = [await service.ask("a=1") for _ in range(2)]
    assert [int(r.overall_code) for r in responses] == [OK, OK]
    assert [int(r.statuses[0].code) for r in responses] == [OK, OVER_LIMIT]


QUOTAS = "descriptors:" + rule("small", 1, ", quota_mode: true") + rule("large", 3, ", quota_mode: true") + rule("e", 2)


async def test_quotas_deny_only_together() -> None:
    service = Service(QUOTAS)
    assert await service.codes("small=1", "large=1", calls=4) == [OK, OK, OK, OVER_LIMIT]
    service = Service(QUOTAS)
    assert await service.codes("small=1", "large=1", "e=1", calls=3) == [OK, OK, OVER_LIMIT]
    response = await service.ask("small=2", "large=2")
    assert [int(s.code) for s in response.statuses] == [OK, OK]
    response = await service.ask("small=2", "large=2")
    assert (int(response.overall_code), [int(s.code) for s in response.statuses]) == (OK, [OVER_LIMIT, OK])


async def test_quota_mode_for_all_and_what_always_passes() -> None:
    service = Service("descriptors:" + rule("a", 1) + rule("b", 2), GlobalModes(quota_mode=True))
    assert await service.codes("a=1", "b=1", calls=3) == [OK, OK, OVER_LIMIT]
    assert await service.codes("a=2", "unmatched=1", calls=3) == [OK] * 3, "a descriptor without a limit passes"


async def test_a_quota_in_shadow_passes_for_all_of_them() -> None:
    text = "descriptors:" + rule("a", 1, ", quota_mode: true") + rule("s", 1, ", quota_mode: true, shadow_mode: true")
    assert await Service(text).codes("a=1", "s=1", calls=3) == [OK] * 3
    assert await Service(text).codes("a=1", calls=2) == [OK, OVER_LIMIT]


SEVERAL = """
algorithm: gcra
descriptors:
- key: a
  rate_limits:
  - {unit: second, requests_per_unit: 2, name: burst}
  - {unit: minute, requests_per_unit: 3}
- {key: b, rate_limit: {unit: day, requests_per_unit: 9, replaces: [{name: burst}]}}
"""


async def test_several_limits_must_all_admit_and_the_tightest_is_told() -> None:
    service = Service(SEVERAL)
    told = []
    for _ in range(4):
        (status,) = (await service.ask("a=1")).statuses
        assert status.current_limit is not None
        told.append((int(status.code), status.current_limit.requests_per_unit, status.limit_remaining))
        service.clock.sleep(SECOND // 2)
    assert told == [(OK, 2, 1), (OK, 3, 1), (OK, 3, 0), (OVER_LIMIT, 3, 0)]


async def test_one_of_several_limits_may_be_replaced() -> None:
    service = Service(SEVERAL)
    assert await service.codes("a=1", "b=1", calls=4) == [OK, OK, OK, OVER_LIMIT]


async def test_hits_of_the_request_and_of_a_descriptor() -> None:
    service = Service("descriptors:" + rule("a", 10) + rule("b", 10))

    async def left(*descriptors: str | RateLimitDescriptor, hits: int = 0) -> list[int]:
        return [status.limit_remaining for status in (await service.ask(*descriptors, hits=hits)).statuses]

    assert await left("a=1", "b=1", hits=3) == [7, 7]
    assert await left(descriptor("a=1", hits_addend=2), "b=1", hits=3) == [5, 4]
    assert await left(descriptor("a=1", hits_addend=0), "b=1") == [5, 3]
    assert await left(descriptor("a=1", hits_addend=4, is_negative_hits=True), "b=1") == [9, 2]
    assert await left(descriptor("a=1", hits_addend=2**64 - 1, is_negative_hits=True)) == [10]
    assert await left("a=1", "a=1") == [8, 8], "the same counter twice: its hits add"
    assert await left(descriptor("a=1", hits_addend=0), "a=1") == [7, 7]


async def test_the_same_counter_twice_is_one_after_others_were_two() -> None:
    service = Service("descriptors:" + rule("a", 10))
    for descriptors, left in ((("a=1", "a=2"), [9, 9]), (("a=1", "a=1"), [7, 7]), (("a=1", "a=2"), [6, 8])):
        assert [status.limit_remaining for status in (await service.ask(*descriptors)).statuses] == left


async def test_a_peek_is_over_where_a_hit_would_be() -> None:
    service = Service("algorithm: gcra\ndescriptors:" + rule("a", 1))
    peek = descriptor("a=1", hits_addend=0)
    assert await service.codes(peek, peek, "a=1", calls=1) == [OK]
    assert await service.codes(peek, calls=2) == [OVER_LIMIT, OVER_LIMIT]


async def test_an_override_counts_apart_from_several_limits_too() -> None:
    service = Service(SEVERAL)
    assert await service.codes("a=1", calls=2) == [OK, OK]
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=1, unit=RateLimitUnit.MINUTE)
    assert await service.codes(descriptor("a=1", limit=override), calls=2) == [OK, OVER_LIMIT]


@pytest.mark.parametrize("algorithm", ["fixed_window", "gcra", "sliding_window"])
async def test_more_hits_than_any_limit_has_are_over_it(algorithm: str) -> None:
    most = 2**32 - 1
    service = Service(f"algorithm: {algorithm}\ncount_denied: false\ndescriptors:" + rule("a", most))
    for hits in (2**64 - 1, 2**53, 2**32):
        assert await service.codes(descriptor("a=1", hits_addend=hits), calls=1) == [OVER_LIMIT]
    half = descriptor("a=1", hits_addend=2**31)
    assert await service.codes(half, half, calls=1) == [OVER_LIMIT], "together they are more"
    assert await service.codes("a=1", "a=1", calls=1, hits=most) == [OVER_LIMIT]
    assert await service.codes(descriptor("a=1", hits_addend=most), calls=2) == [OK, OVER_LIMIT]


def test_shared_counters_of_two_wildcards_are_two() -> None:
    """Though `ab` with a value of `a*`, and a key of `a*` with any, are written with the same letters."""
    shared = ", share_threshold: true, rate_limit: {unit: day, requests_per_unit: 1}}"
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor("ab=a1")]))
    of_value, of_key = (
        Service(f"descriptors: [{{{match}{shared}]").planner.plan(message).names
        for match in ("key: ab, value: 'a*'", "key: 'a*'")
    )
    assert of_value != of_key


async def test_share_threshold() -> None:
    text = "descriptors:\n- {key: p, value: x/*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 2}}"
    service = Service(text + "\n- {key: p, value: y/*, rate_limit: {unit: day, requests_per_unit: 1}}")
    assert await service.codes("p=x/1", calls=1) == [OK]
    assert await service.codes("p=x/2", calls=2) == [OK, OVER_LIMIT]
    assert await service.codes("p=y/1", calls=2) == [OK, OVER_LIMIT]
    assert await service.codes("p=y/2", calls=2) == [OK, OVER_LIMIT]
    assert await service.codes("p=x/*", calls=1) == [OVER_LIMIT], "the pattern's own text is one of its values"


async def test_a_multiple_of_a_unit_is_told_without_one() -> None:
    service = Service("descriptors:" + rule("a", 5, limit=", unit_multiplier: 2"))
    (status,) = (await service.ask("a=1")).statuses
    assert status.current_limit is not None
    assert (status.current_limit.requests_per_unit, int(status.current_limit.unit)) == (5, 0)
    assert await service.codes("a=1", calls=5) == [OK] * 4 + [OVER_LIMIT]
    service.clock.sleep(24 * 60 * MINUTE)
    service.clock.sleep(24 * 60 * MINUTE)
    assert await service.codes("a=1", calls=1) == [OK]


async def test_a_burst_of_its_own() -> None:
    service = Service(
        "algorithm: gcra\ndescriptors: [{key: a, rate_limit: {unit: minute, requests_per_unit: 60, burst: 3}}]"
    )
    assert await service.codes("a=1", calls=4) == [OK, OK, OK, OVER_LIMIT]
    service.clock.sleep(SECOND)
    assert await service.codes("a=1", calls=2) == [OK, OVER_LIMIT]
    assert (await service.ask("a=2")).statuses[0].limit_remaining == 2


class Gone:
    """A store that never answers."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("timeout", "no answer")

    async def connect(self) -> None: ...

    async def probe(self) -> None:
        raise StoreError("timeout", "no answer")


@pytest.mark.parametrize("given", list(OnStoreFailure))
async def test_what_never_denies_does_not_where_the_store_is_gone(given: OnStoreFailure) -> None:
    text = "descriptors:" + rule("a", 1)
    for service in (
        Service(text, GlobalModes(shadow_mode=True), counters=Gone(), on_store_failure=given),
        Service("descriptors:" + rule("a", 1, ", shadow_mode: true"), counters=Gone(), on_store_failure=given),
    ):
        assert await service.codes("a=1", calls=1) == [OK]


async def test_without_the_store_what_is_unlimited_still_has_all_remaining() -> None:
    rules = "descriptors:" + rule("a", 1) + "\n- {key: u, rate_limit: {unlimited: true}}"
    with_store, without = Service(rules), Service(rules, counters=Gone())
    unlimited, unmatched = [(await with_store.ask("u=1", "x=1")).statuses[i] for i in (0, 1)]
    assert unlimited != unmatched
    assert (await without.ask("a=1", "u=1", "x=1")).statuses[1:] == [unlimited, unmatched]


async def test_quota_mode_for_all_makes_no_quota_of_what_is_unlimited() -> None:
    rules = "descriptors:" + rule("a", 1) + "\n- {key: u, rate_limit: {unlimited: true}}"
    service = Service(rules, GlobalModes(quota_mode=True))
    assert await service.codes("a=1", "u=1", calls=2) == [OK, OVER_LIMIT]


async def test_quota_mode_for_all_has_what_is_replaced_pass() -> None:
    rules = "descriptors:" + rule("a", 1, limit=", name: n") + rule("b", 1, limit=", replaces: [{name: n}]")
    assert await Service(rules, GlobalModes(quota_mode=True)).codes("a=1", "b=1", calls=3) == [OK] * 3


async def test_a_quota_in_shadow_that_is_replaced_is_none() -> None:
    rules = "descriptors:" + rule("s", 1, ", quota_mode: true, shadow_mode: true", limit=", name: n")
    rules += rule("b", 1, ", quota_mode: true", limit=", replaces: [{name: n}]")
    assert await Service(rules).codes("s=1", "b=1", calls=2) == [OK, OVER_LIMIT]


async def test_an_unlimited_tier_is_told() -> None:
    service = Service("tiers: {vip: {unlimited: true}}\ndescriptors: [{key: a, tier: vip}]")
    assert [(h.key, h.value) for h in (await service.ask("a=1")).request_headers_to_add] == [
        ("x-ratelimit-tier", "vip")
    ]


@pytest.mark.parametrize(
    ("algorithm", "wait_s"), [("fixed_window", 43_200), ("gcra", 8640), ("sliding_window", 86_400)]
)
async def test_a_call_for_all_of_a_limit_has_a_wait_and_one_for_more_has_none(algorithm: str, wait_s: int) -> None:
    service = Service(f"algorithm: {algorithm}\ncount_denied: false\ndescriptors:" + rule("a", 10))
    await service.ask("a=1")
    bodies = [json.loads((await service.ask("a=1", hits=hits)).raw_body) for hits in (10, 11)]
    assert [body.get("retry_after_s") for body in bodies] == [wait_s, None]
