"""What a request of several limits means: from rules and a request to the answer, on counters in memory."""

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.counters.memory import MemoryCounters
from extauth.errors import InvalidRequestError, StoreError
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Counters, Group, TakeResult
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.rls.response import ResponseHeaders
from extauth.rules.masking import Masking
from extauth.rules.model import OnStoreFailure
from tests.support.clock import MINUTE, SECOND, Clock
from tests.support.codes import OK, OVER_LIMIT
from tests.support.service import decider_of


def descriptor(*entries: str, **more: Any) -> RateLimitDescriptor:  # noqa: ANN401
    """`key=value` an entry."""
    pairs = (entry.partition("=") for entry in entries)
    return RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key=k, value=v) for k, _, v in pairs], **more)


class Service:
    """Planner, limiter, counters and encoder, as the app puts them together."""

    def __init__(
        self,
        rules: str,
        modes: GlobalModes = NO_MODES,
        *,
        headers: ResponseHeaders | None = None,
        counters: Counters | None = None,
        on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW,
    ) -> None:
        self.clock = Clock()
        options = LimiterOptions(modes=modes, response_headers=headers, on_store_failure=on_store_failure)
        decider = decider_of("domain: d\n" + rules, counters or MemoryCounters(self.clock), options)
        self.planner, self.limiter, self.answers = decider

    async def ask(self, *descriptors: str | RateLimitDescriptor, hits: int = 0) -> RateLimitResponse:
        """One call; a descriptor given as text is one of that entry."""
        each = [descriptor(d) if isinstance(d, str) else d for d in descriptors]
        message = bytes(RateLimitRequest(domain="d", descriptors=each, hits_addend=hits))
        decided = await self.limiter.decide(Counter([self.planner.plan(message)]))
        (answer,) = self.answers.encode(decided.groups[0])
        assert answer is not None
        return RateLimitResponse.parse(answer)

    async def codes(self, *descriptors: str | RateLimitDescriptor, calls: int, hits: int = 0) -> list[int]:
        return [int((await self.ask(*descriptors, hits=hits)).overall_code) for _ in range(calls)]


def rule(key: str, requests: int, more: str = "", limit: str = "") -> str:
    return f"\n- {{key: {key}, rate_limit: {{unit: day, requests_per_unit: {requests}{limit}}}{more}}}"


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


async def test_an_override_counts_apart_from_several_limits_too() -> None:
    service = Service(SEVERAL)
    assert await service.codes("a=1", calls=2) == [OK, OK]
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=1, unit=RateLimitUnit.MINUTE)
    assert await service.codes(descriptor("a=1", limit=override), calls=2) == [OK, OVER_LIMIT]


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


async def test_an_admissions_headers_describe_the_tightest_limit() -> None:
    service = Service("descriptors:" + rule("a", 2) + rule("b", 9), headers=ResponseHeaders("L", "R", "S"))
    response = await service.ask("b=1", "a=1")
    headers = {header.key: header.value for header in response.response_headers_to_add}
    assert (headers["L"], headers["R"]) == ("2", "1")
    assert 0 < int(headers["S"]) <= 86_400
    assert (await service.ask("unmatched=1")).response_headers_to_add == []


MINUTE_AND_DAY = """
descriptors:
- {key: minute, rate_limit: {unit: minute, requests_per_unit: 3}}
- {key: day, rate_limit: {unit: day, requests_per_unit: 4}}
- {key: peeked, rate_limit: {unit: day, requests_per_unit: 5, algorithm: gcra}}
- {key: watched, shadow_mode: true, rate_limit: {unit: month, requests_per_unit: 2}}
- key: both
  rate_limits: [{unit: minute, requests_per_unit: 3}, {unit: day, requests_per_unit: 4}]
- {key: soon, quota_mode: true, rate_limit: {unit: minute, requests_per_unit: 3}}
- {key: later, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 4}}
- key: quota_of_both
  quota_mode: true
  rate_limits: [{unit: hour, requests_per_unit: 6}, {unit: day, requests_per_unit: 4}]
- key: quota_that_waits_for_its_second
  quota_mode: true
  rate_limits: [{unit: hour, requests_per_unit: 99}, {unit: day, requests_per_unit: 4}]
- {key: closed, rate_limit: {unit: hour, requests_per_unit: 0}}
"""
# At 13:00:27 of a day that ends in 10 h 59 min 33 s, after 7 hits. The limit, and the seconds of retry-after and reset.
HELD_BACK = [
    (["minute=1"], "3", "33", "33"),
    (["minute=1", "day=1"], "4", "39573", "39573"),
    (["day=1", "minute=1"], "4", "39573", "39573"),
    (["minute=1", "peeked=1"], "5", "17280", "86400"),
    (["watched=1", "minute=1"], "3", "33", "33"),
    (["both=1"], "4", "39573", "39573"),
    (["minute=1", "both=1"], "4", "39573", "39573"),
    (["later=1", "soon=1"], "3", "33", "33"),
    (["soon=1", "day=1"], "4", "39573", "39573"),
    (["quota_of_both=1"], "4", "39573", "39573"),
    (["quota_of_both=1", "soon=1"], "3", "33", "33"),
    (["minute=1", "quota_that_waits_for_its_second=1"], "4", "39573", "39573"),
    (["day=1", "closed=1"], "0", None, "3573"),
]


@pytest.mark.parametrize(("descriptors", "limit", "retry_after", "reset"), HELD_BACK, ids=str)
async def test_a_denials_headers_describe_the_limit_that_its_retry_after_waits_for(
    descriptors: list[str], limit: str, retry_after: str | None, reset: str
) -> None:
    service = Service(MINUTE_AND_DAY, headers=ResponseHeaders("L", "R", "S"))
    service.clock.sleep(60 * MINUTE + 27 * SECOND)
    for _ in range(7):
        for each in descriptors:
            await service.ask(each)
    response = await service.ask(*descriptors)
    assert int(response.overall_code) == OVER_LIMIT
    headers = {header.key: header.value for header in response.response_headers_to_add}
    assert (headers["L"], headers["R"], headers["S"]) == (limit, "0", reset)
    assert headers.get("retry-after") == retry_after


async def test_dynamic_metadata() -> None:
    text = """
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1}, metadata: {who: {name: x, 1: 1, y: 2}, list: [1, true, null]}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 9}, metadata: {who: {name: why, more: z}}}
"""
    service = Service(text, GlobalModes(metadata=True))
    first, second = [(await service.ask("a=1", "b=1", hits=h)).dynamic_metadata for h in (0, 2)]
    assert first is not None
    assert second is not None
    assert first.to_dict() == {
        "domain": "d",
        "descriptors": [{"entries": ["a=1"]}, {"entries": ["b=1"]}],
        "metadata": {"who": {"name": "x", "1": 1, "true": 2, "more": "z"}, "list": [1, True, None]},
    }
    assert second.to_dict()["metadata"] == {"who": {"name": "why", "more": "z"}}, "of what passed"
    assert second.to_dict()["hitsAddend"] == 2
    assert (await Service(text).ask("a=1")).dynamic_metadata is None


async def test_metadata_of_what_does_not_apply_are_not_told() -> None:
    text = """
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1, name: a}, metadata: {a: 1}}
- {key: b, rate_limit: {unlimited: true, replaces: [{name: a}]}, metadata: {b: 1}}
"""
    told = (await Service(text, GlobalModes(metadata=True)).ask("a=1", "b=1")).dynamic_metadata
    assert told is not None
    assert "metadata" not in told.to_dict()


class Gone:
    """A store that never answers."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("timeout", "no answer")

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


NAMES = [
    ("- {key: a}", ["a=of-a-caller"], "a"),
    ("- {key: a, value: of-the-file}", ["a=of-the-file"], "a_of-the-file"),
    ("- {key: a, value_to_metric: true}", ["a=shown"], "a_shown"),
    ("- {key: a, detailed_metric: true}", ["a=shown"], "a_shown"),
    ("- {key: a, value: se*}", ["a=secret-value"], "a_se*"),
    ("- {key: 'a*', value: x}", ["a-made-up=x"], f"a*_{Masking().mask('x')}"),
    ("- {key: 'header_*', value_to_metric: true}", ["header_auth=s"], f"header_auth_{Masking().mask('s')}"),
    ("- {key: '*', detailed_metric: true}", ["password=s"], f"password_{Masking().mask('s')}"),
    (
        "- {key: token, value: s*, value_to_metric: true, share_threshold: true}",
        ["token=secret"],
        f"token_{Masking().mask('s*')}",
    ),
    ("- {key: a, value: se*, value_to_metric: true}", ["a=secret"], "a_secret"),
    ("- {key: a, value: se*, value_to_metric: true, share_threshold: true}", ["a=secret"], "a_se*"),
    ("- {key: a, value: se*, detailed_metric: true, share_threshold: true}", ["a=secret"], "a_se*"),
    ("- {key: a, value_regex: of.*}", ["a=of-a-caller"], "a_of.*"),
    ("- {key: a, value_range: {start: 1, end: 9}}", ["a=5"], "a_1..9"),
    ("- {key: a, values: [x, y]}", ["a=y"], "a_y"),
    (f"- {{key: a, value_sha256: {sha256(b'x').hexdigest()}}}", ["a=x"], f"a_{sha256(b'x').hexdigest()[:12]}…"),
    ("- {key: api_key, value: secret-key}", ["api_key=secret-key"], f"api_key_{Masking().mask('secret-key')}"),
    ("- {key: X-Api-Key, value_regex: se.*}", ["X-Api-Key=se"], f"X-Api-Key_{Masking().mask('se.*')}"),
    ("- {key: auth-token, value_to_metric: true}", ["auth-token=s"], f"auth-token_{Masking().mask('s')}"),
    ("- {key: passwords, detailed_metric: true}", ["passwords=s"], f"passwords_{Masking().mask('s')}"),
]


@pytest.mark.parametrize(("text", "entries", "name"), NAMES, ids=[name for _, _, name in NAMES])
def test_the_metric_names_the_rule_and_values_where_it_was_asked_to(text: str, entries: list[str], name: str) -> None:
    service = Service("descriptors:\n" + text[:-1] + ", rate_limit: {unit: day, requests_per_unit: 1}}")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*entries)]))
    assert [rule.name for rule in service.planner.plan(message).tally.rules] == [name]


RULES_OF_ONE_NAME = """
- {key: path, value: /api/v1/login, rate_limit: &l {unit: day, requests_per_unit: 1}}
- {key: path, value: /api/v1/orders, rate_limit: *l}
- {key: a, value: b_c, rate_limit: *l}
- {key: a_b, value: c, rate_limit: *l}
- {key: a_b_c, rate_limit: *l}
- {key: a_b_c, value: d, rate_limit: *l}
- {key: k, value: m.n, rate_limit: *l}
- {key: k, value: m, descriptors: [{key: n, rate_limit: *l}]}
- {key: k_1..2, rate_limit: *l}
- {key: k, value_range: {start: 1, end: 2}, rate_limit: *l}
"""


def test_each_rule_has_a_name_of_its_own_in_the_metrics() -> None:
    service = Service("descriptors:" + RULES_OF_ONE_NAME)
    requests = [
        "path=/api/v1/login",
        "path=/api/v1/orders",
        "a=b_c",
        "a_b=c",
        "a_b_c=x",
        "a_b_c=d",
        "k=m.n",
        "k_1..2=y",
    ]
    entries = [[text] for text in requests] + [["k=m", "n=y"], ["k=1"]]
    names = [
        service.planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*each)]))).tally.rules[0].name
        for each in entries
    ]
    assert len(set(names)) == len(entries), names
    assert names[:4] == ["path_/api/v1/login", "path_/api/v1/orders", "a_b_c", "a_b_c (f.yaml:6)"]


@pytest.mark.parametrize(
    ("rules", "asked", "name"),
    [
        ("{key: q, values: [x], rate_limit: *l}, {key: q_x, rate_limit: *l}", ["q=x"], "q_x (request)"),
        (
            "{key: a, value_to_metric: true, rate_limit: *l}, {key: a, value: b, descriptors: [{key: c, tier: t}]}",
            ["a=b.c"],
            "a_b.c (request)",
        ),
    ],
)
def test_a_request_does_not_count_as_a_rule_of_the_file(rules: str, asked: list[str], name: str) -> None:
    head = "tiers: {t: &l {unit: day, requests_per_unit: 1}}\ndescriptors: ["
    service = Service(head + rules + "]")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor(*asked)]))
    assert service.planner.plan(message).tally.rules[0].name == name


def test_a_label_of_a_secret_key_is_masked() -> None:
    service = Service("labels: [path]\nsecret: [path]\ndescriptors: []")
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor("path=/users/jane")]))
    assert service.planner.plan(message).template.labels.path == Masking().mask("/users/jane")


@pytest.mark.parametrize(
    ("secret", "name"),
    [("", f"token_{Masking().mask('v')}.k_w"), ("secret: []\n", "token_v.k_w"), ("secret: [k]\n", None)],
)
def test_the_file_says_which_keys_are_secret(secret: str, name: str | None) -> None:
    rules = "descriptors: [{key: token, value: v, descriptors: [{key: k, value: w, rate_limit: {unit: day}}]}]"
    service = Service(secret + rules)
    message = bytes(RateLimitRequest(domain="d", descriptors=[descriptor("token=v", "k=w")]))
    masks = Masking().mask
    assert service.planner.plan(message).tally.rules[0].name == (name or f"token_{masks('v')}.k_{masks('w')}")


def test_a_secret_key_keys_the_fingerprints() -> None:
    masks = [Masking(secret).mask("free-tier-key") for secret in ("", "s", "t")]
    assert len(set(masks)) == 3
    assert all(re.fullmatch(r"fr\*\*\*~[0-9a-f]{6}", mask) for mask in masks)
    assert Masking("s").mask("short").startswith("***~")
