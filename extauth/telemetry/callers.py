"""Who is denied most, and who calls most, by rule: bounded sketches of this replica's callers.

A caller is a descriptor that a rule limits, as text: its entries, with secret values masked. Counted is by the names of
the callers' counters, in which values are hashed. The text is made when somebody wants to see it, from the
message of a plan that the planner still remembers: no message is kept for this, and none longer than the planner does.

The counts are of the last WINDOW_S to twice as many seconds. A rule that has many callers gets sketches of its own, the
first MAX_RULES of them; the callers of all others share one pool.

As long as it costs little, all calls are counted, else a sample (`sampling.py`). Denied calls are sampled apart from
all calls. A caller that is in no sketch costs MISS_WORK; a group of equal calls costs 1 of the work for all calls, and
none of that for denied ones.

All sketches together have at most 4 × (MAX_RULES × RULE_CALLERS + POOL_CALLERS) = 8,192 entries. An entry takes about
400 bytes, and with the longest of names and texts 1.2 KB: 3 MiB together, and never more than 10.
"""

import random
from collections.abc import Callable, Container, Sequence
from time import perf_counter, time
from typing import Final

from extauth.limiter.counters import Mode, TakeResult
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact, denied_of
from extauth.limiter.plan import UNLIMITED_AT, Plan, Tally
from extauth.limiter.planner import Planner
from extauth.rules.rule_names import RuleName
from extauth.telemetry.caller_report import OwnWindows, Reporter, Sketches, Steps, at_once, in_turns
from extauth.telemetry.caller_windows import CallerWindows
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.sampling import Sampling
from extauth.telemetry.top import MOST_CALLERS, MOST_RULES, Top

WINDOW_S: Final = 900.0
MAX_RULES: Final = 24
RULE_CALLERS: Final = 64
POOL_CALLERS: Final = 512
MANY_CALLERS: Final = 8
"""A rule with this number of callers gets sketches of its own."""

MISS_WORK: Final = 10
MAX_KEPT_MESSAGE_BYTES: Final = 512  # the planner remembers no larger ones
DESCRIBED_A_SECOND: Final = 20
MAX_CANDIDATES: Final = 1000


class _Rule:
    """Where the callers of a rule are counted."""

    __slots__ = ("busiest", "denied", "made_s")

    def __init__(self, capacity: int, now_s: float) -> None:
        self.made_s = now_s
        self.denied = CallerWindows(capacity, now_s)
        self.busiest = CallerWindows(capacity, now_s)


class Callers:
    """An observer that counts callers.

    The `planner` names a caller; `masked` knows which rules' names must not be shown any more. `clock` is that of the
    facts, in seconds; `wall_s` gives seconds since the epoch; `draw` gives a random number from 0 to below 1.
    """

    def __init__(
        self,
        planner: Planner,
        masked: MaskedNames | None = None,
        *,
        clock: Callable[[], float] = perf_counter,
        wall_s: Callable[[], float] = time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._planner = planner
        self._clock = clock
        self._wall_s = wall_s
        now_s = clock()
        self._pool = _Rule(POOL_CALLERS, now_s)
        self._own: dict[RuleName, _Rule] = {}
        self._stale: set[RuleName] = set()  # have sketches of their own, from before the rules were reloaded
        self._candidates: dict[RuleName, int] = {}
        self._masked = MaskedNames() if masked is None else masked
        self._forgotten = 0  # how often names were forgotten
        self._second_ends = now_s + 1
        self._window_ends = now_s + WINDOW_S
        self._calls, self._denials = Sampling(draw), Sampling(draw)
        self._describes_left = DESCRIBED_A_SECOND

    # Observing

    def batch_decided(self, fact: BatchFact) -> None:
        """Count the callers of a batch."""
        now_s = fact.answered_at
        if now_s >= self._second_ends:
            self._begin_second(now_s)
        groups = fact.groups
        weight = self._calls.draw(len(groups))
        if weight:
            self._count_calls(groups, weight, now_s)
        weight = self._denials.draw(len(groups))
        if weight:
            for plan, calls, taken, _, _ in fact.denied:
                assert taken is not None  # noqa: S101 - for the type checker
                self._count_denied(plan, (calls - taken.admitted) * weight, taken, now_s)

    def call_shed(self, fact: ShedFact) -> None:
        """Count the caller of a call that is part of no batch."""
        if not fact.counting:
            now_s = self._clock()
            group = (fact.group,)
            self.batch_decided(BatchFact(group, denied_of(group), False, None, (), now_s, now_s, now_s))

    def rules_loaded(self, remasked: Container[str] = ()) -> None:
        """Let new rules take the places of those that are in force no more.

        Of the `remasked` domains no name is shown any more. What was counted in the pool for a caller of theirs is
        shown under its new names once it calls again; what was counted in sketches of a rule's own is forgotten.
        """
        self._own = {rule: own for rule, own in self._own.items() if rule.domain not in remasked}
        self._stale = set(self._own)
        self._candidates.clear()
        self._forgotten += 1
        self._pool.denied.forget_names(remasked)
        self._pool.busiest.forget_names(remasked)

    def _begin_second(self, now_s: float) -> None:
        self._second_ends = now_s + 1
        self._calls.begin_second()
        self._denials.begin_second()
        self._describes_left = DESCRIBED_A_SECOND
        if now_s >= self._window_ends:
            self._window_ends = now_s + WINDOW_S
            self._calls.rotate()
            self._denials.rotate()
            for rule in (self._pool, *self._own.values()):
                rule.denied.rotate(now_s)
                rule.busiest.rotate(now_s)

    def _count_calls(self, groups: Sequence[GroupResult], weight: int, now_s: float) -> None:
        self._calls.work_left -= len(groups)
        for plan, calls, _, _, _ in groups:
            names = plan.names
            if not names:
                continue
            rules = plan.tally.callers or self._register(plan.tally)
            if len(names) == 1 == len(rules):
                entry = rules[0].busiest.entries.get(names[0])
                if entry is not None:
                    entry.count += calls * weight
                    entry.last_s = now_s
                else:
                    self._add(plan, 0, calls * weight, now_s, self._calls)
            else:
                for i in {own[0] for own in plan.template.counters_of if own and own is not UNLIMITED_AT}:
                    self._add(plan, i, calls * weight, now_s, self._calls)

    def _count_denied(self, plan: Plan, calls: int, taken: TakeResult, now_s: float) -> None:
        rules, names = plan.tally.callers or self._register(plan.tally), plan.names
        if len(names) == 1 == len(rules):
            entry = rules[0].denied.entries.get(names[0])
            if entry is not None:
                entry.count += calls
                entry.last_s = now_s
            else:
                self._add(plan, 0, calls, now_s, self._denials)
            return
        for i in _denying(plan, taken):
            self._add(plan, i, calls, now_s, self._denials)

    def _add(self, plan: Plan, i: int, weight: int, now_s: float, sampling: Sampling) -> None:
        """Count the caller whose counter is the plan's i-th; what is quick for known callers was tried already."""
        sampling.work_left -= MISS_WORK
        denied = sampling is self._denials
        tally, template = plan.tally, plan.template
        if not self._masked.show_plans_of(template):
            return
        at = i if template.places is None else template.places[i]
        counted: _Rule = tally.callers[at]
        windows = counted.denied if denied else counted.busiest
        key, rule = plan.names[i], tally.rules[at]
        if counted is self._pool and key not in windows.entries and self._deserves_own(rule, now_s):
            counted = self._register(tally)[at]
            windows = counted.denied if denied else counted.busiest
        who = windows.add(key, weight, now_s, rule, plan)
        forgotten_soon = template.without_store is not None or len(plan.message) > MAX_KEPT_MESSAGE_BYTES
        if who.text is None and forgotten_soon and self._describes_left:
            self._describes_left -= 1
            who.make_text(self._planner, key)

    def _deserves_own(self, rule: RuleName, now_s: float) -> bool:
        """Whether a rule whose callers are in the pool is to have sketches of its own, which it then has."""
        if rule in self._own:
            return True
        if not rule.in_file or (len(self._own) >= MAX_RULES and not self._stale):
            return False
        callers = self._candidates.get(rule, 0) + 1
        if callers < MANY_CALLERS:
            if len(self._candidates) < MAX_CANDIDATES or rule in self._candidates:
                self._candidates[rule] = callers
            return False
        self._candidates.pop(rule, None)
        if len(self._own) >= MAX_RULES:
            del self._own[self._stale.pop()]
        self._own[rule] = _Rule(RULE_CALLERS, now_s)
        return True

    def _register(self, tally: Tally) -> tuple[_Rule, ...]:
        """Look up where the callers of the tally's rules are counted."""
        own = self._own
        self._stale.difference_update(tally.rules)
        tally.callers = rules = tuple([own.get(rule, self._pool) for rule in tally.rules])
        return rules

    # Reporting

    def top(self, most: int = MOST_CALLERS, most_rules: int = MOST_RULES) -> Top:
        """The `most` most denied and busiest callers of each rule, of at most `most_rules` rules."""
        return at_once(self._report(most, most_rules))

    async def look(self, most: int = MOST_CALLERS, most_rules: int = MOST_RULES) -> Top:
        """As `top`, but in several turns of the event loop if there are many callers."""
        while True:
            forgotten = self._forgotten
            top = await in_turns(self._report(most, most_rules))
            if self._forgotten == forgotten:  # else it may have names that must not be shown any more
                return top

    def _report(self, most: int, most_rules: int) -> Steps[Top]:
        to_wall = self._wall_s() - self._clock()
        denied, busiest = (
            Sketches(
                getattr(self._pool, kind),
                {rule: OwnWindows(getattr(own, kind), own.made_s) for rule, own in self._own.items()},
            )
            for kind in ("denied", "busiest")
        )
        rules, left_out = yield from Reporter(self._planner, to_wall, most, most_rules).steps(denied, busiest)
        since_s = round(self._pool.denied.before_s + to_wall, 1)
        return Top(since_s, self._denials.examined, self._calls.examined, rules, left_out)


def _denying(plan: Plan, taken: TakeResult) -> list[int]:
    """Of each descriptor whose limits denied the calls, the index of the plan's first counter that is its own.

    That is whose enforced limits have no room for the first call that is denied or, where these all have, whose quotas.
    """
    enforced: list[int] = []
    quotas: list[int] = []
    for indices in plan.template.counters_of:
        if indices is UNLIMITED_AT:
            continue
        full = {
            plan.checks[i].mode for i in indices if plan.checks[i].calls_that_fit(taken.levels[i]) <= taken.admitted
        }
        if Mode.ENFORCED in full:
            enforced.append(indices[0])
        elif Mode.QUOTA in full or Mode.SAME_QUOTA in full:
            quotas.append(indices[0])
    return list(dict.fromkeys(enforced or quotas))
