"""A sliding window counts the hits of the last period, whenever one looks.

A hit counts from its instant, rounded up to the quantum, until a period later.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from operator import sub
from typing import ClassVar, NamedTuple

from extauth.limiter.algorithms.outcome import MAX_HITS, SLIGHT, Outcome, calls_that_fit_in, share_of
from extauth.limiter.algorithms.protocol import State, pack_limit
from extauth.rules.model import MAX_EXACT, Limit

LOG_ENTRY_BYTES = 96  # two integers, and their places in two lists


class LogUsage(NamedTuple):
    """A sliding_window level: `hits` in the window, and the time until the last of them is out of it.

    `wait_us` is the time until the group's first call that found no room would find it (its last one, where denied hits
    count).
    """

    hits: int
    ends_in_us: int
    wait_us: int = 0


@dataclass(slots=True)
class Log:
    """A sliding window: `totals[i]` hits since the log began, up to and with those at `times[i]`.

    `base` hits are out of the window and out of the log. Reading changes nothing: another limit, with a longer window,
    may come next.
    """

    period_us: int
    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    base: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether all hits were given back."""
        return not self.times

    def used_hits(self, now: int) -> int:
        """In its own window."""
        return self.used(now, self.period_us)

    def ends_us(self) -> int:
        """When its last hit leaves the window."""
        return self.times[-1] + self.period_us

    def more_bytes(self) -> int:
        """What its entries after the first take."""
        return (len(self.times) - 1) * LOG_ENTRY_BYTES

    def merge_newest(self) -> bool:
        """Make one of the two newest entries: the hits of both count until the later one leaves the window."""
        del self.times[-2], self.totals[-2]
        return True

    def used(self, now: int, period_us: int) -> int:
        """The hits of the last `period_us`."""
        return self.totals[-1] - self.gone(now, period_us)[1]

    def gone(self, now: int, period_us: int) -> tuple[int, int]:
        """The number of entries that are out of the window, and of hits before the first that is not."""
        gone = bisect_right(self.times, now - period_us)
        return gone, self.totals[gone - 1] if gone else self.base


class SlidingWindow:
    """A sliding_window limit."""

    cost_us: ClassVar = 20  # of a long log, which is searched
    falls_evenly: ClassVar = False
    holds_until_end: ClassVar = False
    numbers: ClassVar = 3
    read: ClassVar = LogUsage

    __slots__ = ("_longest_us", "_period_us", "_quantum_us", "capacity", "packed", "slight_hits", "slight_level")

    def __init__(self, limit: Limit) -> None:
        self.capacity = limit.capacity
        self._period_us, self._quantum_us = limit.period_us, limit.quantum_us
        self._longest_us = limit.period_us + limit.quantum_us - 1
        self.slight_hits = self.slight_level = limit.capacity // SLIGHT
        self.packed = pack_limit(3, limit, limit.period_us, limit.requests_per_unit, limit.quantum_us)

    def calls_that_fit(self, cost: int, level: LogUsage) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        return calls_that_fit_in(self.capacity - level.hits, cost)

    def calls_up_to(self, hits: int, cost: int, level: LogUsage) -> int:
        """Number of equal calls after which the counter holds at most `hits`."""
        return calls_that_fit_in(hits - level.hits, cost)

    def first_number(self, hits: int) -> int:
        """The first number of a level at which `hits` are used."""
        return hits

    def outcome(self, cost: int, level: LogUsage, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        hits = calls * cost
        used = max(level.hits + hits, 0)
        reset_us = max(level.ends_in_us, self._longest_us) if hits > 0 else level.ends_in_us if used else 0
        if not over:
            return Outcome(False, max(self.capacity - used, 0), reset_us)
        return Outcome(True, 0, reset_us, None if max(cost, 1) > self.capacity else level.wait_us)

    def countdown(self, level: LogUsage) -> tuple[int, int, int, int]:
        """What admitted calls are told: (remaining, reset in ticks, ticks per hit, ticks per second)."""
        return self.capacity - level.hits, max(level.ends_in_us, self._longest_us), 0, 1_000_000

    def used_hits(self, level: LogUsage) -> int:
        """The hits that the counter holds."""
        return level.hits

    def after(self, level: LogUsage, hits: int) -> LogUsage:
        """The level once the hits are taken."""
        return LogUsage(max(level.hits + hits, 0), max(level.ends_in_us, self._longest_us if hits > 0 else 0))

    def later(self, level: LogUsage, elapsed_us: int) -> LogUsage:
        """The level `elapsed_us` later, at most: hits leave the window one by one, which only the log knows."""
        left_us = level.ends_in_us - elapsed_us
        return LogUsage(level.hits, left_us) if left_us > 0 else LogUsage(0, 0)

    def in_terms(self, state: State, now: int) -> bool:
        """Whether the state is in this limit's terms, and not from a clock that was ahead of this one."""
        if not isinstance(state, Log):
            return False
        if state.period_us != self._period_us and state.used(now, self._period_us):
            return False
        return not state.used(now, self._period_us) or self._near(state, now)

    def convert(self, state: State, now: int) -> Log | None:
        """The state in this limit's terms: of another window's log the entries stay, else all hits count from now."""
        if isinstance(state, Log) and self._near(state, now):
            return self.take(state, 0, now)
        hits = state.used(now, self._period_us) if isinstance(state, Log) else state.used_hits(now)
        return self.take(None, hits, now) if hits else None

    def level(self, state: Log | None, now: int) -> LogUsage:
        """The level of a counter."""
        used = state.used(now, self._period_us) if state else 0
        return LogUsage(used, state.times[-1] + self._period_us - now if state and used else 0)

    def level_with_wait(self, state: Log | None, level: LogUsage, excess: int, now: int) -> LogUsage:
        """The level, with the time until `excess` more hits are out of the window; those of now are the last."""
        if excess <= 0:
            return level
        if state and excess <= level.hits:
            base = state.gone(now, self._period_us)[1]
            leaves_us = state.times[bisect_left(state.totals, base + excess)] + self._period_us
            return level._replace(wait_us=max(leaves_us - now, 1))
        newest = state.times[-1] if state else 0
        return level._replace(wait_us=max(self._stamp(now), newest) + self._period_us - now)

    def take(self, state: Log | None, hits: int, now: int) -> Log:
        """The state once the hits are taken, or given back: the newest first."""
        stamp = self._stamp(now)
        if state is None:
            return Log(self._period_us, [stamp], [min(hits, MAX_HITS)])
        gone, base = state.gone(now, self._period_us)
        log = Log(self._period_us, state.times[gone:], state.totals[gone:], base)
        if hits == 0:
            return log
        total = min(state.totals[-1] + hits, MAX_HITS)
        if hits < 0:
            last = bisect_left(log.totals, max(total, base + 1)) if total > base else -1
            del log.times[last + 1 :], log.totals[last + 1 :]
        elif not log.times or (log.times[-1] < stamp and len(log.times) < MAX_EXACT):
            log.times.append(stamp)
            log.totals.append(total)
        else:
            log.times[-1] = max(log.times[-1], stamp)
        if log.totals:
            log.totals[-1] = total
        return log

    def seed(self, level: LogUsage, whole: "SlidingWindow", now: int) -> Log | None:
        """The state of a counter that has used as much of this limit, in parts of it, as one of `whole` has of that.

        When each of the hits leaves the window is not known, so all of them count until the last one does.
        """
        hits = share_of(level.hits, self.capacity, whole.capacity)
        if not hits or level.ends_in_us <= 0:
            return None
        return Log(self._period_us, [now + level.ends_in_us - self._period_us], [hits])

    def owed(self, before: Log | None, state: Log, now: int) -> tuple[int, ...]:
        """(instant, hits, instant, hits, …) of those that are in the window."""
        known = before.totals[-1] if before else 0
        numbers: list[int] = []
        total = state.base
        for at_us, up_to in zip(state.times, state.totals, strict=True):
            hits = up_to - max(total, known)
            total = up_to
            if hits > 0 and at_us > now - self._period_us:
                numbers += (at_us, hits)
        return tuple(numbers)

    def settle(self, state: Log | None, owed: tuple[int, ...], now: int) -> Log | None:
        """The state once the hits are in the log, each at its own instant."""
        gone, base = state.gone(now, self._period_us) if state else (0, 0)
        times, totals = (state.times[gone:], state.totals[gone:]) if state else ([], [])
        since, latest = now - self._period_us, self._stamp(now)
        pairs = zip(owed[::2], owed[1::2], strict=True)
        added = [(min(at_us, latest), hits) for at_us, hits in pairs if at_us > since]
        held = zip(times, map(sub, totals, [base, *totals]), strict=True)
        log = Log(self._period_us, [], [], base)
        total = base
        for at_us, hits in sorted([*held, *added]):
            total = min(total + hits, MAX_HITS)
            if log.times and (log.times[-1] == at_us or len(log.times) == MAX_EXACT):
                log.times[-1], log.totals[-1] = at_us, total
            else:
                log.times.append(at_us)
                log.totals.append(total)
        return log if log.times else None

    def give_back(self, state: State, hits: int, at_us: int, now: int) -> State:
        """The state without the hits in the entry of their instant: others would leave the window at another time."""
        stamp = self._stamp(at_us)
        if not isinstance(state, Log) or state.period_us != self._period_us or stamp <= now - self._period_us:
            return state
        i = bisect_left(state.times, stamp)
        if i == len(state.times) or state.times[i] != stamp:
            return state
        before = state.totals[i - 1] if i else state.base
        hits = min(hits, state.totals[i] - before)
        totals = [*state.totals[:i], *[total - hits for total in state.totals[i:]]]
        if totals[i] > before:
            return Log(self._period_us, state.times[:], totals, state.base)
        return Log(self._period_us, state.times[:i] + state.times[i + 1 :], totals[:i] + totals[i + 1 :], state.base)

    def _near(self, log: Log, now: int) -> bool:
        """Whether the log is not from a clock that was far ahead: less than a tenth of the window is waited out."""
        return log.times[-1] - now <= self._quantum_us + self._period_us // 10

    def _stamp(self, now: int) -> int:
        return -(-now // self._quantum_us) * self._quantum_us
