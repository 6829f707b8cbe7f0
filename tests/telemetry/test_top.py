"""The callers of several replicas, packed and summed."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.telemetry.top import (
    MAX_PACKED_BYTES,
    MOST_CALLERS,
    Caller,
    RuleTop,
    Top,
    TopOfAll,
    pack_top,
    sum_tops,
    unpack_top,
)


def top(*rules: RuleTop, since_s: float = 0, left_out: int = 0) -> Top:
    return Top(since_s, 1, 1, rules, left_out)


def callers(number: int, size: int = 10) -> tuple[Caller, ...]:
    return tuple(Caller(f"ip={i:0{size}}", 10_000 - i, 1, 2, 3.5, 4.5) for i in range(number))


SMALL = top(RuleTop("d", "r", callers(3), callers(2), 5, 6), RuleTop("d", "ü", (), callers(1), 0, 7))


def test_what_was_packed_can_be_read() -> None:
    assert unpack_top(pack_top(SMALL)) == SMALL
    assert unpack_top(pack_top(top())) == top()


CUTS = [
    (10, 10, MOST_CALLERS, 10),
    (20, 10, 10, 20),
    (50, 10, 3, 50),
    (150, 10, 1, 150),
    (500, 10, 1, None),
    (100, 200, 1, None),
    (2, 9000, 1, 0),
]


@pytest.mark.parametrize(("rules", "size", "most", "kept"), CUTS)
def test_it_is_cut_to_fit(rules: int, size: int, most: int, kept: int | None) -> None:
    whole = top(*[RuleTop("d", f"r{i}", callers(20, size), callers(20, size), 5, 6) for i in range(rules)])
    packed = pack_top(whole)
    read = unpack_top(packed)
    assert read is not None
    assert len(packed) <= MAX_PACKED_BYTES
    assert kept is None or len(read.rules) == kept
    assert len(read.rules) + read.left_out == rules
    assert len(packed) > MAX_PACKED_BYTES // 2 or kept == 0
    for rule, original in zip(read.rules, whole.rules, strict=False):
        assert (rule.denied, rule.busiest) == (original.denied[:most], original.busiest[:most])
        if most < MOST_CALLERS:  # the first that is cut was counted at most so often
            assert rule.denied_others == rule.busiest_others == 10_000 - most + 2


NONSENSE = [
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b"[1,2,3,4]",
    pack_top(SMALL)[:-5],
    b'["NaN",1,1,[]]',
    b"[NaN,1,1,[]]",
    b"[" * 9999,
]


@pytest.mark.parametrize("packed", NONSENSE)
def test_what_is_none_is_not_read(packed: bytes) -> None:
    assert unpack_top(packed) is None


def test_the_json_has_the_names() -> None:
    small = sum_tops([SMALL, top(left_out=3)])
    view = json.loads("".join(TopOfAll(SMALL, small, 2, 1, 'a "problem"').json()))
    assert view.items() >= {"replicas": 2, "unknown": 1, "problem": 'a "problem"'}.items()
    assert view["all"]["rules"] == view["replica"]["rules"]
    assert (view["all"]["left_out"], view["replica"]["left_out"]) == (3, 0)
    assert view["replica"].items() >= {"since_s": 0, "denied_examined": 1, "busiest_examined": 1}.items()
    rules = view["replica"]["rules"]
    assert rules[0]["denied"][0] == {
        "caller": "ip=0000000000",
        "calls": 10_000,
        "error": 1,
        "missing": 2,
        "first_s": 3.5,
        "last_s": 4.5,
    }
    assert rules[1].items() >= {"domain": "d", "rule": "ü", "denied": [], "busiest_others": 7}.items()


def test_the_json_of_nobody() -> None:
    view = json.loads("".join(TopOfAll(top(), top(), 1).json()))
    assert (view["all"]["rules"], view["unknown"], view["problem"]) == ([], 0, None)


def test_the_sum_of_none_is_empty() -> None:
    assert sum_tops([]).rules == ()


def test_callers_add_up() -> None:
    a = top(
        RuleTop("d", "r", (Caller("x", 9, 1, 0, 5, 6), Caller("y", 4, 0, 1, 1, 2)), (), 3, 0), since_s=7, left_out=2
    )
    b = top(RuleTop("d", "s", (Caller("x", 5),)), RuleTop("d", "r", (Caller("y", 6, 2, 3, 4, 5),), (), 6), since_s=5)
    assert sum_tops([a, b]) == top(
        RuleTop("d", "r", (Caller("y", 10, 2, 4, 1, 5), Caller("x", 9, 1, 6, 5, 6)), (), 9),
        RuleTop("d", "s", (Caller("x", 5),)),
        since_s=5,
        left_out=2,
    )


COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 20))


@given(replicas=st.lists(COUNTS, max_size=4), listed=st.integers(0, 8), most=st.integers(0, 8))
def test_every_sum_is_within_what_may_be_missing(replicas: list[dict[str, int]], listed: int, most: int) -> None:
    exact: Counter[str] = Counter()
    tops = []
    for counts in replicas:
        exact.update(counts)
        ranked = sorted(counts.items(), key=lambda each: -each[1])
        others = max([0, *[calls for _, calls in ranked[listed:]]])
        rule = RuleTop("d", "r", tuple([Caller(*each) for each in ranked[:listed]]), (), others)
        tops.append(top(rule))
    for rule in sum_tops(tops, most).rules:
        assert len(rule.denied) <= most
        for caller in rule.denied:
            assert caller.calls <= exact[caller.caller] <= caller.calls + caller.missing
        unlisted = exact.keys() - {caller.caller for caller in rule.denied}
        assert all(exact[caller] <= rule.denied_others for caller in unlisted)


def _report(calls: object = 1, first_s: object = 1, since_s: object = 0, examined: object = 1) -> bytes:
    rule = ["d", "r", [["c", calls, 0, 0, first_s, 1]], [], 0, 0]
    return json.dumps([since_s, examined, 1, [rule], 0]).encode()


IMPLAUSIBLE = [
    {"calls": int("9" * 4300)},
    {"calls": -1},
    {"first_s": 1e300},
    {"first_s": -1e300},
    {"since_s": 1e300},
    {"examined": 2},
]


@pytest.mark.parametrize("field", IMPLAUSIBLE, ids=lambda field: str(field)[:20])
def test_a_report_with_numbers_that_cannot_be_is_not_read(field: dict[str, object]) -> None:
    """Anybody who may write to Redis may write a report: with such numbers no replica could show its `/top`."""
    assert unpack_top(_report()) is not None
    assert unpack_top(_report(**field)) is None


def test_sums_of_the_largest_reports_can_be_read_again() -> None:
    most = unpack_top(_report(calls=10**15))
    assert most is not None
    summed = sum_tops([most, most, most])
    assert unpack_top(pack_top(summed)) == summed
    assert summed.rules[0].denied[0].calls == 10**15
