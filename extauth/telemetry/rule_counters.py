"""The calls of each rule, and those that came near its limits or were over them."""

from collections import deque
from collections.abc import Collection, Container, Iterator, Sequence
from typing import Any, NamedTuple

from extauth.limiter.counters import TakeResult
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.rules.rule_names import RuleName
from extauth.telemetry import catalogue
from extauth.telemetry.history import OTHER_RULES, Change, RuleKey
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.near_limit import Watch
from extauth.telemetry.request_counters import RequestCounters
from extauth.telemetry.tables import OTHER, Cell, CounterTable, named_first

MAX_NAMES_FROM_REQUESTS = 1000
MAX_COUNTED = 16_384
MAX_WAITING_BYTES = 512  # of a plan's message
STEP = 500  # plans whose calls are added in a step
STEP_SERIES = 40  # series that are made in a step, of which one takes twenty times as long


class RuleTotals(NamedTuple):
    """What was counted of a rule since the start: calls, and of these those over, near, and denied if not shadowed."""

    domain: str
    rule: str
    calls: int
    over: int
    near: int
    shadowed: int


class _LimitSeries(NamedTuple):
    """The series of a check's rule; `shadowed` is None where the rule is not in shadow mode."""

    over: Cell
    near: Cell
    shadowed: Cell | None


class _RuleSeries:
    """The series of a Tally: the calls of each of its rules, and for each check the series of its rule.

    They hold for one `generation` of the rules, until a reload. `only` is that of the check, where there is but one.
    """

    __slots__ = ("asked", "generation", "limits", "only")

    def __init__(self, generation: object, asked: tuple[Cell, ...], limits: tuple[_LimitSeries, ...]) -> None:
        self.generation = generation
        self.asked = asked
        self.limits = limits
        self.only = limits[0] if len(limits) == 1 else None


class RuleCounters:
    """Tables of counters by domain and rule.

    The calls of a rule are counted in its plans, which a decision has touched anyway, and added to the tables before
    these are read, or when MAX_COUNTED plans have some. That keeps these plans in memory, except those of large
    messages, whose calls are added at once. Of the names that contain values of requests, the first
    MAX_NAMES_FROM_REQUESTS have series; the others share `other`. The calls that are added count in `requests`, too. If
    `everything_shadowed`, all rules count as being in shadow mode. The calls of rules whose names must not be shown any
    more, by `masked`, count as those of `other`.
    """

    def __init__(
        self,
        requests: RequestCounters,
        masked: MaskedNames,
        *,
        everything_shadowed: bool = False,
    ) -> None:
        self.calls = CounterTable(catalogue.RULE_CALLS)
        self.over = CounterTable(catalogue.RULE_OVER_LIMIT)
        self.near = CounterTable(catalogue.RULE_NEAR_LIMIT)
        self.shadowed = CounterTable(catalogue.RULE_SHADOW_DENIED)
        self._requests = requests
        self._masked = masked
        self._everything_shadowed = everything_shadowed
        self._names_from_requests: set[str] = set()
        self._counted: deque[Plan] = deque()  # those with calls that are not added to their rules' series yet
        self._generation = object()
        self._others_denied = 0  # by rules without a name in `changes`, which are not among its changes yet

    @property
    def tables(self) -> tuple[CounterTable, ...]:
        """All of them."""
        return self.calls, self.over, self.near, self.shadowed

    def add(self, plan: Plan, calls: int, denied: int) -> None:
        """Count calls, and those of them that were denied, in a plan, to have them added some time."""
        waits = plan.calls
        plan.calls = waits + calls
        if denied:
            plan.denied += denied
        if waits:
            return
        if len(plan.message) <= MAX_WAITING_BYTES:
            self._counted.append(plan)
        else:
            self._add(plan, calls, denied)
            plan.calls = plan.denied = 0

    def count(self, plan: Plan, calls: int, denied: int) -> None:
        """Count calls in the series of their rules."""
        series = self._series(plan)
        for cell in series.asked:
            cell.value += calls
        if denied and series.only is not None and not plan.template.soft:
            series.only.over.value += denied

    def count_limits(self, plan: Plan, calls: int, taken: TakeResult, watches: Sequence[Watch]) -> int:
        """Count, for each rule, the calls that its limits had no room for, and those that came near them.

        The calls were counted before, and with them those over a plan's only limit, if that is enforced: the denied
        ones. `watches` has one for each check of the plan. Returns how many calls were admitted and came near any limit
        that is not in shadow mode.
        """
        series = self._series(plan)
        template, only, (admitted, levels, _) = plan.template, series.only, taken
        if only is not None and not template.soft:
            check = plan.checks[0]
            if not admitted or check.cost <= 0:
                return 0
            low = check.algorithm.calls_up_to(watches[0].hits, check.cost, levels[0])
            if low >= admitted:
                return 0
            only.near.value += admitted - low
            return admitted - low
        limits = series.limits if template.places is None else [series.limits[i] for i in template.places]
        found: dict[_LimitSeries, _Found] = {}
        for check, level, watched, own in zip(plan.checks, levels, watches, limits, strict=True):
            fitting = check.calls_that_fit(level)
            each = found.get(own)
            if each is None:
                each = found[own] = _Found(calls)
            if fitting < calls and (fitting <= admitted or (check.limit.count_denied and not check.stops)):
                each.over = max(each.over, calls - fitting)
            each.fitting = min(each.fitting, admitted, fitting)
            if check.cost > 0:
                each.below = min(each.below, check.algorithm.calls_up_to(watched.hits, check.cost, level))
        low = admitted  # of the admitted calls, those that leave all counters low
        for own, each in found.items():
            own.over.value += each.over
            own.near.value += max(each.fitting - each.below, 0)
            if own.shadowed is not None:
                own.shadowed.value += each.over
            else:
                low = min(low, each.below)
        return admitted - low

    def rules_loaded(self, remasked: Collection[str] = ()) -> list[dict[Any, Any]]:
        """Start anew, for other rules are in force, soon after `steps`; returns tables to be emptied bit by bit.

        The series of the domains that are `remasked` are forgotten.
        """
        self._add_some(len(self._counted))
        self._generation = object()
        self._names_from_requests.clear()
        return [unused for table in self.tables for unused in [*table.forget(remasked), *table.age()]]

    def steps(self) -> Iterator[bytes]:
        """Add the calls of all plans to the series of their rules, in steps, each of which yields nothing.

        A step takes well below a millisecond. The calls that are counted meanwhile wait for the next time.
        """
        left = len(self._counted)
        while left > 0:
            left -= max(self._add_some(min(left, STEP), STEP_SERIES), 1)
            yield b""

    def bound(self) -> None:
        """Add the calls of some plans, if too many have some."""
        if len(self._counted) > MAX_COUNTED:
            self._add_some(len(self._counted) - MAX_COUNTED)

    def _add_some(self, plans: int, most_series: int = MAX_COUNTED) -> int:
        """Add the calls of `plans` plans, those that have waited longest; returns how many they were.

        They are fewer if `most_series` have to be made for them.
        """
        next_plan, generation = self._counted.popleft, self._generation
        requests = denied = added = 0
        template: PlanTemplate | None = None
        for _ in range(min(plans, len(self._counted))):  # others may be adding some at the same time
            plan = next_plan()
            calls, plan.calls = plan.calls, 0
            if plan.template is not template:  # most plans share theirs with many
                if template is not None:
                    self._requests.add(template, requests, denied)
                template, requests, denied = plan.template, 0, 0
            requests += calls
            added += 1
            series = plan.tally.series
            if series is None or series.generation is not generation:
                series = self._make_series(plan)
                most_series -= len(series.limits)
            for cell in series.asked:
                cell.value += calls
            if plan.denied:
                denied += plan.denied
                if series.only is not None and not template.soft:
                    series.only.over.value += plan.denied
                plan.denied = 0
            if most_series <= 0:
                break
        if template is not None:
            self._requests.add(template, requests, denied)
        return added

    def _add(self, plan: Plan, calls: int, denied: int) -> None:
        self.count(plan, calls, denied)
        self._requests.add(plan.template, calls, denied)

    def _series(self, plan: Plan) -> _RuleSeries:
        series: _RuleSeries | None = plan.tally.series
        if series is None or series.generation is not self._generation:
            series = self._make_series(plan)
        return series

    def _make_series(self, plan: Plan) -> _RuleSeries:
        tally = plan.tally
        if self._masked.show_plans_of(plan.template):
            names = [(rule.domain, self._called(rule)) for rule in tally.rules]
        else:
            names = [(rule.domain, OTHER) for rule in tally.rules]
        shadowed = set(names) if self._everything_shadowed else {names[i] for i in tally.shadowed}
        limits = {
            name: _LimitSeries(
                self.over.cell(*name), self.near.cell(*name), self.shadowed.cell(*name) if name in shadowed else None
            )
            for name in names
        }
        asked = tuple([self.calls.cell(*name) for name in limits])
        series = tally.series = _RuleSeries(self._generation, asked, tuple([limits[name] for name in names]))
        return series

    def totals(self) -> Iterator[list[RuleTotals]]:
        """What was counted, up to the latest `steps`, of the rules that had calls since these were reloaded.

        In pieces that are quick to make.
        """
        for piece in self.calls.in_force():
            yield [self._totals(domain, rule, calls) for (domain, rule), calls in piece]

    def totals_of(self, domain: str, rule: str) -> RuleTotals:
        """What was counted of one rule up to the latest `steps`."""
        return self._totals(domain, rule, self.calls.value(domain, rule))

    def _totals(self, domain: str, rule: str, calls: int) -> RuleTotals:
        over, near, shadowed = (table.value(domain, rule) for table in (self.over, self.near, self.shadowed))
        return RuleTotals(domain, rule, calls, over, near, shadowed)

    def changes(self, names: Container[RuleKey] | None = None) -> Iterator[list[Change]]:
        """What was counted since this was called before, up to the latest `steps`, in pieces that are quick to make.

        With `names`, that of all other rules is one change, of OTHER_RULES. Calls may be counted while the pieces are
        made. What would make more calls denied than there are is left for the next time.
        """
        other_calls = 0
        for piece, others in self.calls.changes(names):
            other_calls += others
            changes = []
            for name, calls in piece:
                over = self.over.take(name, calls)
                denied = over - self.shadowed.take(name, over) if over else 0
                changes.append(Change(RuleKey(*name), calls - denied, denied))
            yield changes
        if names is None:
            return
        for table, sign in ((self.over, 1), (self.shadowed, -1)):
            for others in table.others(names):
                self._others_denied += sign * others
                yield []
        denied = min(max(self._others_denied, 0), other_calls)
        self._others_denied -= denied
        if other_calls:
            yield [Change(OTHER_RULES, other_calls - denied, denied)]

    def _called(self, rule: RuleName) -> str:
        return rule.name if rule.in_file else named_first(self._names_from_requests, rule.name, MAX_NAMES_FROM_REQUESTS)


class _Found:
    """What is found about `calls` calls and a rule, over all of its limits.

    `over` are over one of them; `fitting` are admitted and fit all of them, and of these, the first `below` leave all
    counters low.
    """

    __slots__ = ("below", "fitting", "over")

    def __init__(self, calls: int) -> None:
        self.over = 0
        self.fitting = self.below = calls
