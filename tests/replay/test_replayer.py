"""Replays, beside the service's limiter that was asked the same, and beside plain arithmetic."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.limiter.modes import GlobalModes
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Override
from extauth.rules.masking import Masking
from extauth.rules.model import Algorithm, Unit
from tests.replay.logs import SECRET, Logger, descriptor, log_line
from tests.replay.replays import replayed
from tests.support.clock import NOON, Clock
from tests.support.service import decider_of

TIERS = """domain: d
algorithm: gcra
labels: [path]
tiers:
  anonymous: {unit: minute, requests_per_unit: 2}
  free: {unit: minute, requests_per_unit: 3, replaces: [{name: anonymous}]}
descriptors:
- {key: api_key, value: free-key, tier: free}
- {key: address, tier: anonymous}
"""


def rows(view: dict[str, Any], side: str = "after") -> dict[str, tuple[int, int]]:
    """(allowed, denied) of each tier and rule."""
    found = {row["tier"]: (row["allowed"], row["denied"]) for row in view[side]["tiers"]}
    return found | {row["rule"]: (row["allowed"], row["denied"]) for row in view[side]["rules"]}


def test_tiers_and_rules_are_told_apart(tmp_path: Path) -> None:
    log = Logger(TIERS)
    lines = [log.line(n / 10, "api_key=free-key", "address=1", "path=/a") for n in range(5)]
    lines += [log.line(1 + n / 10, "api_key=other", "address=1", "path=/b") for n in range(3)]
    lines += [log.line(2, "address=2"), log.line(2.1, "path=/c"), log.line(2.2, "address=3", domain="nobody's")]
    view = replayed(tmp_path, TIERS, lines)
    assert rows(view) == {
        "free": (3, 2),
        "anonymous": (3, 1),
        "none": (2, 0),
        f"api_key_{Masking(SECRET).mask('free-key')}": (3, 2),
        "address": (3, 1),
    }
    assert view["lines"] == {"read": 11, "replayed": 11, "without_descriptors": 0, "malformed": 0, "late": 0}
    assert (view["after"]["allowed"], view["after"]["denied"], view["after"]["unmatched"]) == (8, 3, 2)
    free, address = view["after"]["rules"]
    assert (free["tier"], free["limits"], free["calls"]) == ("free", ["3 per minute"], 5)
    assert free["first_denied"] == [
        {"caller": free["rule"].replace("_fr", "=fr"), "first_at": "2023-11-15T12:00:00.300Z", "denied": 2}
    ]
    assert address["first_denied"] == [{"caller": "address=1", "first_at": "2023-11-15T12:00:01.200Z", "denied": 1}]
    assert free["peak"] == {"calls_per_second": 5, "at": "2023-11-15T12:00:00.000Z"}


def test_without_a_config_before_the_answers_of_envoy_are_compared(tmp_path: Path) -> None:
    log = Logger(TIERS)
    denied = [False, True, False, False]
    view = replayed(tmp_path, TIERS, [log.line(n, "address=1", denied=d) for n, d in enumerate(denied)])
    assert view["answered"] == {"allowed": 3, "denied": 1}
    changes = view["changes"]
    assert (changes["compared_with"], changes["newly_denied"], changes["newly_allowed"]) == ("the log", 2, 1)
    assert changes["first"] == [{"caller": "address=1", "first_at": "2023-11-15T12:00:02.000Z", "denied": 2}]


def test_with_one_the_two_are(tmp_path: Path) -> None:
    log = Logger(TIERS)
    lines = [log.line(n, f"address={n % 2}", denied=True) for n in range(10)]
    view = replayed(tmp_path, TIERS.replace(": 2}", ": 4}"), lines, before=TIERS)
    assert rows(view)["anonymous"] == (8, 2)
    assert rows(view, "before")["anonymous"] == (4, 6)
    changes = view["changes"]
    assert (changes["compared_with"], changes["newly_denied"], changes["newly_allowed"]) == ("before", 0, 4)


def test_hits_overrides_and_give_backs_count_as_they_did(tmp_path: Path) -> None:
    config = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 10}}]"
    log = Logger()

    def asked(*, hits: int | None = None, negative: bool = False, limit: Override | None = None, all_: int = 0) -> Any:  # noqa: ANN401
        each = descriptor("k=v")
        return log.asked([Descriptor(each.entries, limit, hits, negative)], hits=all_)

    calls = [
        (asked(all_=6), True),
        (asked(hits=5), False),  # denied hits count in a fixed window
        (asked(hits=4, negative=True), True),
        (asked(hits=3), True),
        (asked(), False),
        (asked(limit=Override(1, Unit.DAY)), True),
        (asked(limit=Override(1, Unit.DAY)), False),
    ]
    lines = [log_line(n, each, denied=not admitted) for n, (each, admitted) in enumerate(calls)]
    view = replayed(tmp_path, config, lines)
    assert view["after"]["denied"] == 3
    assert (view["changes"]["newly_denied"], view["changes"]["newly_allowed"]) == (0, 0)
    assert [row["rule"] for row in view["after"]["rules"]] == ["k", "override:k"]


def test_a_give_back_ends_a_denial(tmp_path: Path) -> None:
    config = "domain: d\nalgorithm: gcra\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 2}}]"
    log, entries = Logger(), descriptor("k=v").entries
    take = log.asked([Descriptor(entries)])
    give = log.asked([Descriptor(entries, None, 1, is_negative_hits=True)])
    asked = [take, take, take, take, give, take, take]
    admitted = [True, True, False, False, True, True, False]
    lines = [log_line(n / 10, each, not yes) for n, (each, yes) in enumerate(zip(asked, admitted, strict=True))]
    changes = replayed(tmp_path, config, lines)["changes"]
    assert (changes["newly_denied"], changes["newly_allowed"]) == (0, 0)


def test_shadowed_rules_deny_nothing_and_tell_what_was_over(tmp_path: Path) -> None:
    shadowed = TIERS.replace("tier: anonymous}\n", "tier: anonymous, shadow_mode: true}\n")
    lines = [Logger(TIERS).line(n / 10, "address=1") for n in range(5)]
    view = replayed(tmp_path, shadowed, lines)
    assert view["after"]["rules"][0]["over"] == 3
    assert rows(view)["address"] == (5, 0)
    assert replayed(tmp_path, TIERS, lines, modes=GlobalModes(shadow_mode=True))["after"]["denied"] == 0


def test_what_cannot_be_told_is_neither_allowed_nor_denied(tmp_path: Path) -> None:
    config = TIERS.replace("value: free-key", "value_regex: 'fr.*'")
    log = Logger(TIERS)
    lines = [log.line(n, "api_key=x", "address=1") for n in range(3)] + [log.line(4, "address=1")]
    omitted = log_line(5, {"domain": "d", "omitted": "more than 16384 bytes"})
    view = replayed(tmp_path, config, [*lines, omitted], before=TIERS)
    assert (view["after"]["allowed"], view["after"]["denied"]) == (1, 0)
    assert view["after"]["untold"] == [
        {"reason": "after.yaml:8:3: the regex of api_key needs the value", "calls": 3},
        {"reason": "the descriptors are not in the log: more than 16384 bytes", "calls": 1},
    ]
    assert view["before"]["untold"] == [view["after"]["untold"][1]]
    assert view["changes"]["newly_allowed"] == 1


def test_a_wrong_secret_is_warned_of(tmp_path: Path) -> None:
    lines = [Logger(TIERS).line(n, "api_key=free-key", "address=1") for n in range(3)]
    (warning,) = replayed(tmp_path, TIERS, lines, secret="salt")["warnings"]
    assert "none of the hashed values of api_key in the log is one that the config names" in warning
    assert "EXTAUTH_KEY_SECRET" in warning
    assert replayed(tmp_path, TIERS, lines)["warnings"] == []


def test_full_counters_are_warned_of(tmp_path: Path) -> None:
    lines = [Logger().line(n / 1000, f"address={n}") for n in range(2000)]
    (warning,) = replayed(tmp_path, TIERS, lines, max_bytes=1 << 19)["warnings"]
    assert "EXTAUTH_MEMORY_BYTES" in warning


def test_malformed_lines_have_their_place(tmp_path: Path) -> None:
    good = Logger(TIERS).line(0, "address=1")
    view = replayed(tmp_path, TIERS, [good, "nonsense", "", log_line(1, None), log_line(2, 7)])
    assert view["lines"] == {"read": 5, "replayed": 1, "without_descriptors": 1, "malformed": 2, "late": 0}
    assert view["malformed"] == [
        f"{tmp_path}/log0:2: not JSON",
        f"{tmp_path}/log0:5: `ratelimit` has no `domain` and `descriptors`",
    ]


def test_logs_of_several_envoys_are_put_together_by_time(tmp_path: Path) -> None:
    log = Logger(TIERS)
    first = [log.line(at, "address=1", denied=denied) for at, denied in ((9, False), (0, False), (50, False))]
    second = [log.line(at, "address=1", denied=denied) for at, denied in ((10, True), (12, True))]
    changes = replayed(tmp_path, TIERS, first, second)["changes"]
    assert (changes["newly_denied"], changes["newly_allowed"]) == (0, 0)


CONFIG = """domain: d
labels: [path]
descriptors:
- {key: api_key, value: a, rate_limits: [{unit: second, requests_per_unit: 2, algorithm: gcra},
    {unit: minute, requests_per_unit: 5}]}
- {key: api_key, value: b, rate_limit: {unit: second, requests_per_unit: 2, algorithm: sliding_window}}
- {key: api_key, value: c, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 2}}
- {key: api_key, rate_limit: {unit: second, requests_per_unit: 1, algorithm: gcra, burst: 3, name: other}}
- {key: vip, rate_limit: {unlimited: true, replaces: [{name: other}]}}
- {key: user, shadow_mode: true, rate_limit: {unit: second, requests_per_unit: 1}}
- {key: user, value: x, rate_limit: {unit: second, requests_per_unit: 1, algorithm: gcra}}
"""
DESCRIPTORS = [f"api_key={value}" for value in "abcd"] + ["vip=1", "user=x", "user=y", "path=/", "api_key=a,user=x"]
calls = st.tuples(
    st.integers(0, 400), st.lists(st.sampled_from(DESCRIPTORS), min_size=1, max_size=3, unique=True), st.integers(1, 2)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(calls, min_size=1, max_size=40))
def test_every_decision_is_the_services_own(calls: list[tuple[int, list[str], int]]) -> None:
    clock, log = Clock(), Logger(CONFIG)
    planner, limiter, _ = decider_of(CONFIG, MemoryCounters(clock))
    lines = []
    for wait_ms, texts, hits in calls:
        clock.sleep(wait_ms * 1000)
        message = encode_request("d", [descriptor(each) for each in texts], hits)
        taken = asyncio.run(limiter.decide({planner.plan(message): 1})).groups[0].taken
        assert taken is not None
        lines.append(log.line((clock.now - NOON) / 1_000_000, *texts, denied=not taken.admitted, hits=hits))
    with TemporaryDirectory() as folder:
        view = replayed(Path(folder), CONFIG, lines)
    assert (view["changes"]["newly_denied"], view["changes"]["newly_allowed"]) == (0, 0)
    assert view["after"]["allowed"] + view["after"]["denied"] == len(calls)
    assert view["after"]["untold"] == []


@pytest.mark.parametrize("seconds", [1, 200, 10_000])
def test_timelines_add_up_whatever_their_width(tmp_path: Path, seconds: int) -> None:
    log = Logger(TIERS)
    lines = [log.line(seconds * n / 1000, f"address={n % 3}") for n in range(1000)]
    view = replayed(tmp_path, TIERS, lines)
    for row in (*view["after"]["tiers"], *view["after"]["rules"]):
        buckets = row["timeline"]["buckets"]
        assert sum(allowed for _, allowed, _ in buckets) == row["allowed"]
        assert sum(denied for _, _, denied in buckets) == row["denied"]
        assert max(bucket for bucket, _, _ in buckets) < 240
        width_s = row["timeline"]["bucket_s"]
        expected = [0] * 240
        for n in range(1000):
            expected[seconds * n // 1000 // width_s] += 1
        assert {bucket: a + d for bucket, a, d in buckets} == {n: calls for n, calls in enumerate(expected) if calls}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Algorithm), st.booleans(), st.lists(st.integers(0, 300), min_size=10, max_size=60))
def test_denials_end_when_the_limits_say_so(algorithm: Algorithm, count_denied: bool, waits_ms: list[int]) -> None:
    limit = f"{{unit: second, requests_per_unit: 2, algorithm: {algorithm}, count_denied: {str(count_denied).lower()}}}"
    config = f"domain: d\ndescriptors: [{{key: k, rate_limit: {limit}}}]"
    clock, log = Clock(), Logger(config)
    planner, limiter, _ = decider_of(config, MemoryCounters(clock))
    plan = planner.plan(encode_request("d", [descriptor("k=v")]))
    lines = []
    for wait_ms in waits_ms:
        clock.sleep(wait_ms * 1000)
        taken = asyncio.run(limiter.decide({plan: 1})).groups[0].taken
        assert taken is not None
        lines.append(log.line((clock.now - NOON) / 1_000_000, "k=v", denied=not taken.admitted))
    with TemporaryDirectory() as folder:
        changes = replayed(Path(folder), config, lines)["changes"]
    assert (changes["newly_denied"], changes["newly_allowed"]) == (0, 0)


def test_of_equal_peaks_the_first_is_shown(tmp_path: Path) -> None:
    lines = [Logger(TIERS).line(at, f"address={at}") for at in (0, 3, 3.5, 7, 7.9, 9)]
    peaks = {
        row["peak"]["at"]: row["peak"]["calls_per_second"] for row in replayed(tmp_path, TIERS, lines)["after"]["rules"]
    }
    assert peaks == {"2023-11-15T12:00:03.000Z": 2}
