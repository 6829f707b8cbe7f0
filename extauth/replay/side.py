"""Decides the requests of a log by one config: the service's own planner, limiter and counters, and the log's clock."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from extauth.counters.memory import MemoryCounters
from extauth.errors import InvalidRequestError
from extauth.limiter.build import LimiterOptions, build_planner
from extauth.limiter.counters import Group
from extauth.limiter.plan import UNLIMITED_AT, Plan
from extauth.replay.hashed_values import CannotTellError, HashedMatcher
from extauth.replay.log_line import LoggedRequest
from extauth.replay.tally import RuleTally, Tallies, Tally, Timeline
from extauth.rules.masking import Masking
from extauth.rules.model import Kind, Rule, RuleSet

MAX_LIMITS = 5  # of a rule that are shown; requests may bring any with them


class Decision(NamedTuple):
    """Whether a request was admitted, and who was denied: the caller as the first rule without room has it."""

    admitted: bool
    caller: str = ""


ADMITTED = Decision(admitted=True)
NEVER = 2**63  # microseconds since the epoch


class Prepared:
    """What all requests that ask the same have in common.

    `untold` says why they cannot be decided, and then there is no `plan`. `check_rules` and `callers` belong to the
    plan's checks. `calls` and `denied` count the running second. Before `denied_until_us` the request is surely denied:
    only time makes room again.
    """

    __slots__ = (
        "callers",
        "calls",
        "check_rules",
        "denied",
        "denied_until_us",
        "group",
        "plan",
        "rules",
        "tier",
        "untold",
    )

    def __init__(self, untold: str) -> None:
        self.untold = untold
        self.plan: Plan | None = None
        self.group: Group | None = None
        self.tier: Tally | None = None
        self.rules: tuple[RuleTally, ...] = ()
        self.check_rules: tuple[RuleTally, ...] = ()
        self.callers: tuple[str, ...] = ()
        self.calls = self.denied = 0
        self.denied_until_us = 0


class Side:
    """One config, deciding; `name` is what reports call it."""

    def __init__(self, name: str, rules: RuleSet, options: LimiterOptions, timeline: Timeline, max_bytes: int) -> None:
        self.name = name
        self.tallies = Tallies(timeline)
        self.untold: Counter[str] = Counter()
        self.unmatched = 0
        self.counters = MemoryCounters(lambda: 0, max_bytes)  # each take brings its instant
        modes = options.modes._replace(metadata=False, log_descriptors=False)
        self._planner = build_planner(rules, replace(options, modes=modes))
        self.matcher = HashedMatcher(rules, Masking(options.key_secret))
        self._planner.swap(self.matcher)
        self._gives_back = False  # whether any request of the log does
        self._running: list[Prepared] = []

    def prepare(self, request: LoggedRequest) -> Prepared:
        """Plan a request, once for all that are equal."""
        if request.omitted is not None:
            return Prepared(f"the descriptors are not in the log: {request.omitted}")
        try:
            plan = self._planner.plan(self.matcher.encode(request))
        except CannotTellError as error:
            return Prepared(_why_untold(error.rule))
        except InvalidRequestError as error:
            return Prepared(f"extauth refuses the request: {error}")
        prepared = Prepared("")
        prepared.plan = plan
        prepared.group = Group(plan, 1) if plan.names else None
        self._gives_back = self._gives_back or any(check.cost < 0 for check in plan.checks)
        prepared.tier = self.tallies.tier(plan.template.labels.tier)
        prepared.check_rules = tuple(map(self.tallies.rule, plan.tally.rules))
        prepared.rules = tuple(dict.fromkeys(prepared.check_rules))
        for check, rule in zip(plan.checks, prepared.check_rules, strict=True):
            if len(rule.limits) < MAX_LIMITS:
                rule.limits[str(check.limit)] = None
            rule.tier = check.limit.name
        prepared.callers = self._callers(request, plan)
        return prepared

    def _callers(self, request: LoggedRequest, plan: Plan) -> tuple[str, ...]:
        """For each check the descriptor that it counts."""
        shown = [""] * len(plan.checks)
        for descriptor, indices in zip(request.descriptors, plan.template.counters_of, strict=True):
            if indices is not UNLIMITED_AT:
                for i in indices:
                    entries = (self.matcher.show(entry, request.domain) for entry in descriptor.entries)
                    shown[i] = shown[i] or ", ".join(entries)
        return tuple(shown)

    def decide(self, prepared: Prepared, now_us: int) -> Decision | None:
        """Decide a request at an instant; None if that cannot be told."""
        plan = prepared.plan
        if plan is None:
            self.untold[prepared.untold] += 1
            return None
        if not prepared.calls:
            self._running.append(prepared)
        prepared.calls += 1
        group = prepared.group
        if group is None:
            self.unmatched += not plan.template.matched
            return ADMITTED
        over: Iterable[int]
        if now_us < prepared.denied_until_us and not self._gives_back:
            over = (0,)
            prepared.check_rules[0].over += 1
        else:
            refusals = self.counters.refusals
            taken = self.counters.take_at(group, [now_us] * len(group.take.names))
            if taken.admitted:
                if plan.template.soft:
                    _count_over(plan, prepared.check_rules, taken.levels)
                return ADMITTED
            over = _count_over(plan, prepared.check_rules, taken.levels)
            if refusals == self.counters.refusals:  # else there may be room for a counter at any time
                prepared.denied_until_us = _denied_until_us(plan, taken.levels, now_us)
        prepared.denied += 1
        caller = ""
        for i in over:
            rule = prepared.check_rules[i]
            caller = caller or prepared.callers[i]
            rule.denied_now += 1
            self.tallies.deny(rule, prepared.callers[i], now_us)
        return Decision(admitted=False, caller=caller)

    def end_second(self, second: int, bucket: int) -> None:
        """Add what the second brought to the tallies."""
        touched: dict[Tally, None] = {}
        for prepared in self._running:
            calls = prepared.calls
            assert prepared.tier is not None  # noqa: S101 - it was planned
            prepared.tier.calls_now += calls
            prepared.tier.denied_now += prepared.denied
            touched[prepared.tier] = None
            for rule in prepared.rules:
                rule.calls_now += calls
                touched[rule] = None
            prepared.calls = prepared.denied = 0
        self._running.clear()
        for tally in touched:
            tally.end_second(second, bucket)


def _count_over(plan: Plan, rules: Sequence[RuleTally], levels: Sequence[Any]) -> Iterable[int]:
    """Count a call for the rules that have no room for it; returns a check of each."""
    over: dict[RuleTally, int] = {}
    for i, (check, level, rule) in enumerate(zip(plan.checks, levels, rules, strict=True)):
        if check.calls_that_fit(level) < 1:
            over.setdefault(rule, i)
    for rule in over:
        rule.over += 1
    return over.values()


def _denied_until_us(plan: Plan, levels: Sequence[Any], now_us: int) -> int:
    """Until when a plan that was denied now is denied again; 0 where that is not simply a matter of time."""
    if len(plan.checks) != 1:
        return 0
    check = plan.checks[0]
    if check.limit.count_denied:
        return 0
    wait_us = check.outcome(levels[0], 0, 0).retry_after_us
    return NEVER if wait_us is None else now_us + wait_us


def _why_untold(rule: Rule) -> str:
    kind = {Kind.REGEX: "regex", Kind.RANGE: "range", Kind.CIDR: "network"}.get(rule.kind, "wildcard")
    return f"{rule.place.file}:{rule.place.line}:{rule.place.column}: the {kind} of {rule.key} needs the value"
