"""Makes a report of the callers in many sketches, in steps of well below a millisecond each."""

import asyncio
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from hashlib import blake2b
from heapq import nlargest
from operator import itemgetter
from time import perf_counter
from typing import Final, NamedTuple, TypeAlias, TypeVar

from extauth.limiter.planner import Planner
from extauth.rules.rule_names import RuleName
from extauth.telemetry.caller_windows import CallerWindows, Who
from extauth.telemetry.sketch import Entry, SpaceSaving
from extauth.telemetry.top import Caller, RuleTop

NAMED_A_REPORT: Final = 200  # one takes about 10 us
TURN_S: Final = 0.001

_T = TypeVar("_T")
Steps: TypeAlias = Generator[None, None, _T]
"""Work that may be interrupted at each step; returns its result."""

Counts: TypeAlias = Mapping[RuleName, Mapping[bytes, int]]


class OwnWindows(NamedTuple):
    """Where the callers of a rule are counted since `made_s`; before that they were in the pool."""

    windows: CallerWindows
    made_s: float


class Sketches(NamedTuple):
    """Where callers are counted for one reason: in the pool, or those of some rules on their own."""

    pool: CallerWindows
    own: Mapping[RuleName, OwnWindows]

    def of(self, rule: RuleName) -> tuple[SpaceSaving, ...]:
        """All that may have callers of a rule."""
        pool = self.pool
        if rule not in self.own:
            return pool.now, pool.before
        windows, made_s = self.own[rule]
        pooled = [pool.now] * (made_s >= pool.began_s) + [pool.before] * (made_s >= pool.before_s)
        return windows.now, windows.before, *pooled


class Report(NamedTuple):
    """The callers of rules, the rule with the most denied calls first; `left_out` rules come after these."""

    rules: tuple[RuleTop, ...]
    left_out: int


class Reporter:
    """Makes reports. The `planner` names callers; an instant and `to_wall` make one of Unix time."""

    def __init__(self, planner: Planner, to_wall: float, most: int, most_rules: int) -> None:
        self._planner = planner
        self._to_wall = to_wall
        self._most = most
        self._most_rules = most_rules
        self._names_left = NAMED_A_REPORT

    def steps(self, denied: Sketches, busiest: Sketches) -> Steps[Report]:
        """Make a report."""
        denials, calls = (yield from _count(denied)), (yield from _count(busiest))
        order = _order(denials, calls)
        rules = []
        for rule in order[: self._most_rules]:
            yield
            its_denied, denied_others = self._rank(denials.get(rule, {}), denied.of(rule))
            its_busiest, busiest_others = self._rank(calls.get(rule, {}), busiest.of(rule))
            rules.append(RuleTop(rule.domain, rule.name, its_denied, its_busiest, denied_others, busiest_others))
        return Report(tuple(rules), len(order) - len(rules))

    def _rank(self, counts: Mapping[bytes, int], sketches: Sequence[SpaceSaving]) -> tuple[tuple[Caller, ...], int]:
        """The callers with the most calls, and how often whoever is not among them may have been counted."""
        best = nlargest(self._most + 1, counts.items(), key=itemgetter(1))
        callers = [self._caller(key, sketches) for key, _ in best[: self._most]]
        others = sum(sketch.floor for sketch in sketches) + sum(calls for _, calls in best[self._most :])
        return tuple([caller for caller in callers if caller is not None]), others

    def _caller(self, key: bytes, sketches: Sequence[SpaceSaving]) -> Caller | None:
        """What all sketches know of a caller; None if it has lost its places since it was found."""
        entries: list[tuple[SpaceSaving, Entry]] = []
        missing = 0
        for sketch in sketches:
            entry = sketch.find(key)
            if entry is None:
                missing += sketch.floor
            else:
                entries.append((sketch, entry))
        if not entries:
            return None
        return Caller(
            self._text(key, entries),
            sum([entry.count for _, entry in entries]),
            sum([entry.error for _, entry in entries]),
            missing,
            round(min([entry.first_s for _, entry in entries]) + self._to_wall, 1),
            round(max([entry.last_s for _, entry in entries]) + self._to_wall, 1),
        )

    def _text(self, key: bytes, entries: Sequence[tuple[SpaceSaving, Entry]]) -> str:
        for _, entry in entries:
            who: Who = entry.note
            if who.text is None and self._names_left:
                self._names_left -= 1
                who.make_text(self._planner, key)
            if who.text is not None:
                return who.text
        for sketch, entry in entries:
            sketch.set_aside(entry)  # so that it is named once it calls again
        return f"(not named yet) ~{blake2b(key, digest_size=3).hexdigest()}"


def _count(sketches: Sketches) -> Steps[Counts]:
    counts: defaultdict[RuleName, dict[bytes, int]] = defaultdict(dict)
    for sketch in (sketches.pool.now, sketches.pool.before):
        yield
        for entry in sketch:
            if entry.note.rule is not None:
                _add(counts[entry.note.rule], entry)
    for rule, (windows, _) in list(sketches.own.items()):
        yield
        for sketch in (windows.now, windows.before):
            for entry in sketch:
                _add(counts[rule], entry)
    return counts


def _add(counts: dict[bytes, int], entry: Entry) -> None:
    counts[entry.key] = counts.get(entry.key, 0) + entry.count


def _order(denials: Counts, calls: Counts) -> list[RuleName]:
    def weight(rule: RuleName) -> tuple[int, int]:
        return sum(denials.get(rule, {}).values()), sum(calls.get(rule, {}).values())

    return sorted(sorted({**denials, **calls}), key=weight, reverse=True)


def at_once(steps: Steps[_T]) -> _T:
    """The result of all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result


async def in_turns(steps: Steps[_T]) -> _T:
    """The result of all steps, for which a turn of the event loop takes about TURN_S."""
    began_s = perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result
        if perf_counter() - began_s >= TURN_S:
            await asyncio.sleep(0)
            began_s = perf_counter()
