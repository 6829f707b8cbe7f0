"""Calls per second, by tier and by rule."""

import asyncio
import json
from collections.abc import Container, Iterator

import pytest

from extauth.explain.request import read_descriptor
from extauth.limiter.verdict import Labels
from extauth.rls.encode import encode_request
from extauth.rules.rule_names import RuleName
from extauth.telemetry.history import (
    LONGEST_PAUSE_S,
    MAX_RULES,
    MAX_TIERS,
    OTHER_RULES,
    READING_CPU,
    SECONDS,
    Change,
    History,
    RuleKey,
    Series,
)
from extauth.telemetry.metrics import Metrics
from tests.support.clock import Seconds
from tests.support.facts import batch, settled
from tests.support.service import decider_of
from tests.support.wait import until_async

R = RuleKey("d", "r")
NOON_S = 1_700_049_600.0


class Rig:
    """A history whose seconds pass when told to."""

    def __init__(self) -> None:
        self.clock = Seconds()
        self.pending: list[Change] = []
        self.history = History(self.read, clock=self.clock, wall_s=lambda: NOON_S + self.clock.now)

    def read(self, _rules: Container[RuleKey] | None) -> Iterator[list[Change]]:
        pending, self.pending = self.pending, []
        half = len(pending) // 2
        yield pending[:half]
        yield pending[half:]

    def second(self, *changes: Change, seconds: float = 1) -> None:
        self.clock.now += seconds
        self.pending += changes
        for _ in self.history.sample():
            pass


def numbers(history: History, since: int = 0) -> tuple[dict[object, list[int]], dict[object, list[int]]]:
    cut = history.since(since)
    series: list[tuple[object, Series]] = [*cut.tiers.items(), *cut.rules.items()]
    return (
        {key: each.allowed.tolist() for key, each in series},
        {key: each.denied.tolist() for key, each in series},
    )


def test_each_second_has_its_calls() -> None:
    rig = Rig()
    assert numbers(rig.history) == ({}, {})
    rig.second(Change("free", 3, 1), Change("free", 2, 0), Change(R, 3, 1))
    rig.second()
    rig.second(Change("free", 7, 0))
    assert numbers(rig.history) == ({"free": [5, 0, 7], R: [3, 0, 0]}, {"free": [1, 0, 0], R: [1, 0, 0]})
    assert numbers(rig.history, 1) == ({"free": [0, 7]}, {"free": [0, 0]})
    assert numbers(rig.history, 2) == ({"free": [7]}, {"free": [0]})
    assert numbers(rig.history, 3) == ({}, {})
    cut = rig.history.since(1)
    assert (cut.first, cut.last, cut.last_at_s) == (2, 3, NOON_S + rig.clock.now)


@pytest.mark.parametrize(
    ("seconds", "allowed", "denied"),
    [
        (3, [2, 3, 3], [0, 0, 1]),
        (LONGEST_PAUSE_S, [1, 1, 2, 2, 2], [0] * 4 + [1]),
        (LONGEST_PAUSE_S + 1, [0] * 5 + [8], [0] * 5 + [1]),
    ],
)
def test_the_calls_of_a_few_seconds_that_were_not_read_are_spread(
    seconds: int, allowed: list[int], denied: list[int]
) -> None:
    rig = Rig()
    rig.second(Change("free", 1, 0))
    rig.second(Change("free", 8, 1), seconds=seconds)
    assert numbers(rig.history) == ({"free": [1, *allowed]}, {"free": [0, *denied]})


async def test_where_reading_takes_long_it_is_done_less_often() -> None:
    cpu = Seconds()

    def read(_rules: Container[RuleKey] | None) -> Iterator[list[Change]]:
        cpu.now += 2.5 * READING_CPU
        yield []

    history = History(read, cpu_s=cpu)
    keeping = asyncio.create_task(history.keep())
    await until_async(lambda: history.last)
    first = history.last
    await until_async(lambda: history.last > first)
    keeping.cancel()
    assert history.last - first >= 3


@pytest.mark.parametrize("pause_s", [1, LONGEST_PAUSE_S + 1, SECONDS - 1, SECONDS, SECONDS + 1, 5 * SECONDS])
def test_it_goes_back_fifteen_minutes(pause_s: int) -> None:
    rig = Rig()
    rig.second(Change("free", 1, 2))
    rig.second(Change("free", 3, 4), seconds=pause_s)
    cut = rig.history.since()
    allowed, denied = numbers(rig.history)
    expected = [1, *[0] * (pause_s - 1), 3][-SECONDS:]
    assert allowed["free"] == expected
    assert denied["free"] == [number and number + 1 for number in expected]
    assert cut.last - cut.first + 1 == len(expected)


def test_it_holds_as_many_seconds_for_ever() -> None:
    rig = Rig()
    for second in range(2 * SECONDS + 5):
        rig.second(Change("free", second, 0))
    assert numbers(rig.history)[0]["free"] == list(range(SECONDS + 5, 2 * SECONDS + 5))


@pytest.mark.parametrize(("most", "rules"), [(MAX_TIERS, False), (MAX_RULES, True)])
def test_what_is_beyond_the_bound_is_other_until_there_is_room(most: int, rules: bool) -> None:
    def key(i: int) -> str | RuleKey:
        return RuleKey("d", f"{i}") if rules else f"{i}"

    rig = Rig()
    rig.second(*[Change(key(i), 1, 0) for i in range(most + 3)])
    other = RuleKey("", "other") if rules else "other"
    allowed, _ = numbers(rig.history)
    assert allowed == {key(i): [1] for i in range(most)} | {other: [3]}
    rig.second(Change(key(most), 1, 0), seconds=SECONDS)
    assert numbers(rig.history, SECONDS)[0] == {key(most): [1]}


def test_it_is_read_from_the_metrics() -> None:
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)
    free, rule = Labels("/a", "free"), RuleName("d", "r")
    for labels in (free, Labels("/b", "free")):
        metrics.batch_decided(batch(settled(labels, 3, 2, rule), settled(Labels(), 4, 0, rule)))
    for calls in (2, 0):
        clock.now += 1
        list(history.sample())
        metrics.batch_decided(batch(*[settled(free, 1, 0, rule)] * calls))
    clock.now += 1
    list(history.sample())
    assert numbers(history) == (
        {"free": [6, 2, 0], "none": [8, 0, 0], RuleKey("d", "r"): [14, 2, 0]},
        {"free": [4, 0, 0], "none": [0, 0, 0], RuleKey("d", "r"): [4, 0, 0]},
    )


async def test_a_rule_in_shadow_mode_denies_nothing() -> None:
    rule = "{key: k, %s rate_limit: {unit: year, requests_per_unit: 1}}"
    decider = decider_of(f"domain: d\ndescriptors: [{rule % ''}, {rule % 'value: v, shadow_mode: true,'}]")
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)
    for value in ("v", "w"):
        plan = decider.planner.plan(encode_request("d", [read_descriptor(f"k={value}")]))
        metrics.batch_decided(batch(*(await decider.limiter.decide({plan: 5})).groups))
    clock.now += 1
    list(history.sample())
    allowed, denied = numbers(history)
    assert (allowed[RuleKey("d", "k_v")], denied[RuleKey("d", "k_v")]) == ([5], [0])
    assert (allowed[RuleKey("d", "k")], denied[RuleKey("d", "k")]) == ([1], [4])


def test_the_calls_of_rules_without_a_series_are_those_of_other_together() -> None:
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)
    rules = [RuleName("d", f"r{number}") for number in range(MAX_RULES + 2)]
    for first, calls in ((0, 3), (MAX_RULES - 1, 5), (MAX_RULES, 2)):
        metrics.batch_decided(batch(*[settled(Labels(), calls, 1, rule) for rule in rules[first:]]))
        clock.now += 1
        list(history.sample())
    allowed, denied = numbers(history)
    assert allowed[RuleKey("d", "r0")] == [3, 0, 0]
    assert allowed[RuleKey("d", f"r{MAX_RULES - 1}")] == [3, 5, 0]
    assert denied[RuleKey("d", f"r{MAX_RULES - 1}")] == [1, 1, 0]
    assert allowed[OTHER_RULES] == [2 * 3, 2 * 5, 2 * 2]
    assert denied[OTHER_RULES] == [2, 2, 2]


def test_calls_that_come_between_the_pieces_are_counted_with_the_next_second() -> None:
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)
    metrics.batch_decided(batch(settled(Labels(), 1, 0)))
    clock.now += 1
    between = 0
    for _ in history.sample():
        metrics.batch_decided(batch(settled(Labels(), 0, 5)))
        between += 5
    clock.now += 1
    list(history.sample())
    allowed, denied = numbers(history)
    for key in ("none", RuleKey("d", "k")):
        assert min(allowed[key] + denied[key]) >= 0
        assert (sum(allowed[key]), sum(denied[key])) == (1, between)


def test_a_scrape_takes_nothing_away() -> None:
    metrics, clock = Metrics(), Seconds()
    history = History(metrics.changes, clock=clock)
    metrics.batch_decided(batch(settled(Labels("/a", "free"), 3, 2)))
    list(metrics.render())
    clock.now += 1
    list(history.sample())
    list(metrics.render())
    assert numbers(history)[0] == {"free": [3], RuleKey("d", "k"): [3]}


def test_the_json() -> None:
    rig = Rig()
    rig.second(Change('a"b', 1, 2), Change(R, 3, 4), Change("free", 5, 6))
    pieces = list(rig.history.since().json())
    assert json.loads("".join(pieces)) == {
        "first": 1,
        "last": 1,
        "last_at_s": NOON_S + rig.clock.now,
        "tiers": [{"tier": 'a"b', "allowed": [1], "denied": [2]}, {"tier": "free", "allowed": [5], "denied": [6]}],
        "rules": [{"domain": "d", "rule": "r", "allowed": [3], "denied": [4]}],
    }


async def test_it_keeps_itself_up() -> None:
    changes = [Change("free", 1, 0)]
    history = History(lambda _rules: iter([changes]))
    keeping = asyncio.create_task(history.keep())
    await until_async(lambda: history.last >= 1)
    keeping.cancel()
    assert sum(numbers(history)[0]["free"]) >= 1
