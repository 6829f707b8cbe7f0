"""What answers hold beside their codes: headers and dynamic metadata."""

from collections.abc import Sequence

import pytest

from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.limiter.algorithms import Backlog
from extauth.limiter.counters import Group, TakeResult
from extauth.limiter.modes import GlobalModes
from extauth.rls.response import SOURCE_HEADER, ResponseHeaders
from tests.limiter.service import Service, rule
from tests.support.clock import MINUTE, SECOND, Clock
from tests.support.codes import OK, OVER_LIMIT


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


async def test_metadata_that_are_merged_for_one_call_stay_as_they_are_for_others() -> None:
    text = """
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 9}, metadata: {who: {name: x}}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 9}, metadata: {who: {more: z}}}
"""
    service = Service(text, GlobalModes(metadata=True))
    both, one = [(await service.ask(*asked)).dynamic_metadata for asked in (("a=1", "b=1"), ("a=1",))]
    assert both is not None
    assert one is not None
    assert both.to_dict()["metadata"] == {"who": {"name": "x", "more": "z"}}
    assert one.to_dict()["metadata"] == {"who": {"name": "x"}}


class Gone(MemoryCounters):
    """A store that never answers."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("timeout", f"no answer to {len(groups)}")


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("metadata", [True, False])
async def test_answers_without_the_store_are_marked_in_headers_and_metadata(local: bool, metadata: bool) -> None:
    clock = Clock()
    text = "descriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 2}, metadata: {b: 1}}]"
    counting = LocalCounters(clock) if local else None
    service = Service(text, GlobalModes(metadata=metadata), counters=Gone(clock), local=counting)
    source = "local" if local else "failure_policy"
    answers = [await service.ask("a=1") for _ in range(3)]
    assert [int(answer.overall_code) for answer in answers] == [OK, OK, OVER_LIMIT if local else OK]
    for answer in answers:
        assert {header.key: header.value for header in answer.response_headers_to_add}[SOURCE_HEADER] == source
        assert answer.dynamic_metadata is not None
        told = answer.dynamic_metadata.to_dict()
        assert told.pop("source") == source
        assert ("domain" in told) is metadata
        assert told.get("metadata") == ({"b": 1} if metadata and int(answer.overall_code) == OK else None)


async def test_metadata_of_what_does_not_apply_are_not_told() -> None:
    text = """
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1, name: a}, metadata: {a: 1}}
- {key: b, rate_limit: {unlimited: true, replaces: [{name: a}]}, metadata: {b: 1}}
"""
    told = (await Service(text, GlobalModes(metadata=True)).ask("a=1", "b=1")).dynamic_metadata
    assert told is not None
    assert "metadata" not in told.to_dict()


class Rounding:
    """A store that denies although there is room, as one may whose doubles do not hold a limit's ticks exactly."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        return [TakeResult(0, (Backlog(0, 0),) * len(group.take.names)) for group in groups]

    async def connect(self) -> None: ...

    async def probe(self) -> None: ...


async def test_a_denial_without_a_limit_that_is_over_describes_the_first() -> None:
    rules = "descriptors:" + rule("a", 2, limit=", algorithm: gcra") + rule("b", 1, limit=", algorithm: gcra")
    service = Service(rules, headers=ResponseHeaders("L", "R", "S"), counters=Rounding())
    response = await service.ask("a=1", "b=1")
    headers = {header.key: header.value for header in response.response_headers_to_add}
    assert response.overall_code == OVER_LIMIT
    assert (headers["L"], headers["retry-after"]) == ("2", "1")
