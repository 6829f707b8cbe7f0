"""The calls of each rule, and those that were over its limits."""

from collections.abc import Sequence
from typing import NamedTuple

from extauth.limiter.counters import TakeResult
from extauth.limiter.plan import Plan, Tally
from extauth.rules.rule_names import RuleName
from extauth.telemetry.tables import Cell, CounterTable, named_first

MAX_NAMES_FROM_REQUESTS = 1000
MAX_TALLIES_BYTES = 4 << 20


class _RuleSeries(NamedTuple):
    """The series of a Tally: the calls of each of its rules, and for each check the calls over the rule's limits."""

    asked: tuple[Cell, ...]
    over: tuple[Cell, ...]


class RuleCounters:
    """Two tables of counters by domain and rule.

    The calls of a rule are counted in the Tallies of its plans, and added to the tables before these are rendered. Of
    the names that contain values of requests, the first MAX_NAMES_FROM_REQUESTS have series; the others share `other`.
    """

    def __init__(self) -> None:
        self.calls = CounterTable(
            "extauth_rule_calls", "Calls that a rule's limits were asked about.", ("domain", "rule")
        )
        self.over = CounterTable(
            "extauth_rule_over_limit", "Calls that a rule's limits had no room for, denied or not.", ("domain", "rule")
        )
        self._names_from_requests: set[str] = set()
        self._tallies: list[
            Tally
        ] = []  # those that have series, to which their latest calls may not have been added yet
        self._tallies_bytes = 0

    def count(self, plan: Plan, calls: int, taken: TakeResult | None) -> None:
        """Count equal calls; `taken` is None if they could not be counted by the store."""
        tally = plan.tally
        tally.calls += calls
        if tally.series is None:
            self._register(tally)
        if taken is not None and (taken.admitted < calls or plan.template.soft):
            _count_over(tally.series.over, plan, calls, taken)

    def rules_loaded(self) -> None:
        """Start anew, for other rules are in force."""
        self.forget_tallies()
        self._names_from_requests.clear()

    def _register(self, tally: Tally) -> None:
        size = 300 + 100 * len(tally.rules) + tally.own_bytes
        self._tallies_bytes += size
        if self._tallies_bytes > MAX_TALLIES_BYTES:  # many of them may belong to plans that are forgotten
            self.forget_tallies()
            self._tallies_bytes = size
        called = [(rule.domain, self._called(rule)) for rule in tally.rules]
        asked = dict.fromkeys(self.calls.cell(*labels) for labels in called)
        tally.series = _RuleSeries(tuple(asked), tuple([self.over.cell(*labels) for labels in called]))
        self._tallies.append(tally)

    def add_tallies(self) -> None:
        """Add the calls that were counted since the previous call to the series of their rules."""
        for tally in self._tallies:
            calls = tally.calls
            if calls:
                tally.calls = 0
                for cell in tally.series.asked:
                    cell.value += calls

    def forget_tallies(self) -> None:
        """Add the calls that were counted, and drop the tallies, whose plans may be forgotten."""
        self.add_tallies()
        for tally in self._tallies:
            tally.series = None
        self._tallies, self._tallies_bytes = [], 0

    def _called(self, rule: RuleName) -> str:
        return rule.name if rule.in_file else named_first(self._names_from_requests, rule.name, MAX_NAMES_FROM_REQUESTS)


def _count_over(over: Sequence[Cell], plan: Plan, calls: int, taken: TakeResult) -> None:
    """Count, for each rule, the calls that its limits had no room for."""
    if len(over) == 1 and not plan.template.soft:
        over[0].value += calls - taken.admitted
        return
    most: dict[Cell, int] = {}
    for check, level, cell in zip(plan.checks, taken.levels, over, strict=True):
        fitting = check.calls_that_fit(level)
        if fitting < calls and (fitting <= taken.admitted or check.limit.count_denied):
            most[cell] = max(most.get(cell, 0), calls - fitting)
    for cell, number in most.items():
        cell.value += number
