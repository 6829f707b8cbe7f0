"""Counts hits by rule, as envoyproxy/ratelimit does; only where its metrics are asked for."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final, NamedTuple

from extauth.limiter.algorithms import Level
from extauth.limiter.counters import LimitCheck, Mode, Source, TakeResult
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.plan import Plan, Tally
from extauth.rules.model import Limit
from extauth.telemetry.catalogue import Kind, Metric
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.rule_counters import MAX_NAMES_FROM_REQUESTS
from extauth.telemetry.tables import OTHER, Cell, CounterTable, named_first

MAX_REMEMBERED: Final = 4096  # tallies and limits
_DENIAL_CACHE: Final = Source.DENIAL_CACHE  # on Python 3.11 it takes as long to look a member up as to call a function


class Stat(StrEnum):
    """What envoyproxy/ratelimit counts of each rule, by the last part of its name there."""

    TOTAL_HITS = "total_hits"
    WITHIN_LIMIT = "within_limit"
    OVER_LIMIT = "over_limit"
    NEAR_LIMIT = "near_limit"
    SHADOW_MODE = "shadow_mode"
    OVER_LIMIT_WITH_LOCAL_CACHE = "over_limit_with_local_cache"
    TOTAL_NEGATIVE_HITS = "total_negative_hits"


HITS: Final = Metric(
    "ratelimit_service_rate_limit",
    Kind.COUNTER,
    "Hits by rule, as envoyproxy/ratelimit counts them.",
    "",
    ("domain", "rule", "stat"),
)


def hits_table() -> CounterTable:
    """A table of hits by domain, rule and Stat."""
    return CounterTable(HITS)


class HitCounts(NamedTuple):
    """Hits of equal calls that were checked against one limit."""

    within: int
    over: int
    near: int


def count_hits(check: LimitCheck, calls: int, taken: TakeResult, level: Level, near_limit: int) -> HitCounts:
    """The hits of `calls` equal calls: those of calls that fit, those over the limit, and those above `near_limit`.

    Of a call that goes over the limit, the hits up to it are near the limit, and only the rest are over.
    """
    cost, capacity = check.cost, check.limit.capacity
    fitting = check.calls_that_fit(level)
    used = check.algorithm.used_hits(level)
    counted = check.counted_calls(calls, taken.admitted, fitting)
    # A call that another limit denies is not over this one, unless it is counted here and finds no room.
    inside = min(fitting, calls) if counted == calls or fitting <= taken.admitted else calls
    within = inside * cost
    after = used + min(inside, counted) * cost
    over = calls * cost - within
    if inside < calls and counted == calls and after < capacity:
        over -= capacity - after
        after = capacity
    return HitCounts(within, over, max(min(after, capacity) - max(near_limit, used), 0))


class _RuleSeries:
    """The series of a rule; except the usual two, each is made when it begins to count."""

    __slots__ = ("_cells", "_name", "_table", "total", "within")

    def __init__(self, table: CounterTable, name: tuple[str, str]) -> None:
        self._table = table
        self._name = name
        self.total, self.within = table.cell(*name, Stat.TOTAL_HITS), table.cell(*name, Stat.WITHIN_LIMIT)
        self._cells: dict[Stat, Cell] = {}

    def add(self, stat: Stat, hits: int) -> None:
        cell = self._cells.get(stat)
        if cell is None:
            cell = self._cells[stat] = self._table.cell(*self._name, stat)
        cell.value += hits


class _TallySeries(NamedTuple):
    """The series of a Tally's rules; and of a single limit, the hits above which it is near, else a negative number."""

    rules: tuple[_RuleSeries, ...]
    near_limit: int


def _one_a_rule(
    series: Sequence[_RuleSeries], checks: Sequence[LimitCheck], levels: Sequence[Level | None]
) -> Iterable[tuple[_RuleSeries, LimitCheck, Level | None]]:
    """Each rule once, with its check; of several, with that of the limit that fits the fewest calls."""
    all_checks = zip(series, checks, levels, strict=True)
    if len(set(series)) == len(series):
        return all_checks
    least: dict[_RuleSeries, tuple[_RuleSeries, LimitCheck, Level | None]] = {}
    for each in sorted(all_checks, key=lambda each: 0 if each[2] is None else each[1].calls_that_fit(each[2])):
        least.setdefault(each[0], each)
    return least.values()


class ReferenceHits:
    """An Observer that counts hits in `table`. A counter is near its limit above `near_limit_ratio` of it.

    Of the names that contain values of requests, the first MAX_NAMES_FROM_REQUESTS have series, and the others share
    `other`, as do those that must not be shown any more, by `masked`.
    """

    def __init__(self, near_limit_ratio: float, masked: MaskedNames) -> None:
        self.table = hits_table()
        self._ratio = Fraction(str(near_limit_ratio))
        self._masked = masked
        self._names_from_requests: set[str] = set()
        self._series: dict[Tally, _TallySeries] = {}
        self._near: dict[Limit, int] = {}

    def batch_decided(self, fact: BatchFact) -> None:
        """Count a batch."""
        for group in fact.groups:
            self._count(group)

    def call_shed(self, fact: ShedFact) -> None:
        """Count a call that was not decided in time, unless its batch counts it."""
        if not fact.counting:
            self._count(fact.group)

    def rules_loaded(self) -> list[dict[Any, Any]]:
        """Look all series up anew, for other rules are in force; returns tables to be emptied bit by bit."""
        unused: list[dict[Any, Any]] = [self._series, self._near]
        self._series, self._near = {}, {}
        self._names_from_requests.clear()
        return unused

    def _count(self, group: GroupResult) -> None:
        plan, calls, taken, _, _ = group
        template = plan.template
        checks = template.checks
        if not checks:
            return
        series, near = self._series.get(plan.tally) or self._make_series(plan)
        if near >= 0 and taken is not None and taken.admitted == calls and template.places is None:
            check = checks[0]
            hits = calls * check.cost
            if hits > 0 and check.algorithm.used_hits(taken.levels[0]) + hits <= near:  # as most calls
                series[0].total.value += hits
                series[0].within.value += hits
                return
        if template.places is not None:
            series = tuple([series[i] for i in template.places])
        levels: Sequence[Level | None] = taken.levels if taken is not None else (None,) * len(checks)
        for own, check, level in _one_a_rule(series, checks, levels):
            self._count_check(check, calls, taken, level, own)

    def _count_check(
        self, check: LimitCheck, calls: int, taken: TakeResult | None, level: Level | None, own: _RuleSeries
    ) -> None:
        hits = calls * check.cost
        if hits <= 0:
            if hits:
                own.add(Stat.TOTAL_NEGATIVE_HITS, -hits)
            return
        own.total.value += hits
        if taken is None or level is None:
            return  # it was not counted, and nobody knows what it would have been
        if taken.source is _DENIAL_CACHE and not check.calls_that_fit(level):
            own.add(Stat.OVER_LIMIT_WITH_LOCAL_CACHE, hits)
        found = count_hits(check, calls, taken, level, self._near_limit(check.limit))
        own.within.value += found.within
        if found.near:
            own.add(Stat.NEAR_LIMIT, found.near)
        if found.over:
            own.add(Stat.OVER_LIMIT, found.over)
            if check.mode is Mode.SHADOW:
                own.add(Stat.SHADOW_MODE, found.over)

    def _near_limit(self, limit: Limit) -> int:
        near = self._near.get(limit)
        if near is None:
            if len(self._near) >= MAX_REMEMBERED:
                self._near.clear()
            near = self._near[limit] = int(limit.capacity * self._ratio)
        return near

    def _make_series(self, plan: Plan) -> _TallySeries:
        if len(self._series) >= MAX_REMEMBERED:
            self._series.clear()
        shown = self._masked.show_plans_of(plan.template)
        made: dict[tuple[str, str], _RuleSeries] = {}
        series = []
        for rule in plan.tally.rules:
            name = OTHER
            if shown:
                name = rule.name if rule.in_file else self._first(rule.name)
            key = rule.domain, name
            series.append(made.get(key) or made.setdefault(key, _RuleSeries(self.table, key)))
        template = plan.template
        near = -1
        if len(series) == 1 and template.places is None and not template.soft:
            near = self._near_limit(template.checks[0].limit)
        found = self._series[plan.tally] = _TallySeries(tuple(series), near)
        return found

    def _first(self, name: str) -> str:
        return named_first(self._names_from_requests, name, MAX_NAMES_FROM_REQUESTS)
