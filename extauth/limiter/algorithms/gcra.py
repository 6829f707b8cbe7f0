"""GCRA, the generic cell rate algorithm (ITU-T I.371), as a bucket that refills evenly.

The emission interval is the time that one request costs: 60 s / 10 requests = 6 s. The theoretical arrival time (tat)
is when the bucket will be full again; each admitted request moves it on by one emission interval, and a request is
admitted where that leaves the backlog, tat minus now, at most burst x emission interval. With 10 per minute and a burst
of 10: ten requests at once, then one every 6 s.

An emission interval need not be whole microseconds (60 s / 7). It is kept as an irreducible fraction n/d, and backlogs
are counted in ticks of 1/d µs: then everything is an integer, and 7 per minute is exactly 7 per minute.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from extauth.limiter.algorithms.outcome import ANY_NUMBER, MAX_BACKLOG_US, MAX_HITS, SLIGHT, Outcome
from extauth.limiter.algorithms.protocol import FixedSize, State, pack_limit
from extauth.rules.model import EmissionInterval, Limit

_new = tuple.__new__  # the constructor of a NamedTuple is a Python function, which takes twice as long


class Backlog(NamedTuple):
    """A gcra level, the time until the bucket is full again: `whole_us`, and `rest` / ticks_per_us microseconds."""

    whole_us: int
    rest: int


@dataclass(slots=True)
class Bucket(FixedSize):
    """A gcra counter: `backlog` ticks at `at_us`, at an emission interval."""

    at_us: int
    backlog: int
    interval: EmissionInterval

    def backlog_at(self, now: int) -> int:
        """Ticks."""
        return max(self.backlog - max(now - self.at_us, 0) * self.interval.ticks_per_us, 0)

    def used_hits(self, now: int) -> int:
        """Rounded up."""
        return min(-(-self.backlog_at(now) // self.interval.ticks), MAX_HITS)

    def ends_us(self) -> int:
        """When it is full again."""
        return self.at_us - (-self.backlog // self.interval.ticks_per_us)


class Gcra:
    """A gcra limit."""

    cost_us: ClassVar = 5
    falls_evenly: ClassVar = True
    holds_until_end: ClassVar = False
    numbers: ClassVar = 2
    read: ClassVar = Backlog

    __slots__ = ("_capacity", "_interval", "_most", "_ticks_per_us", "packed", "slight_hits", "slight_level")

    def __init__(self, limit: Limit) -> None:
        self._interval, self._ticks_per_us = limit.emission_interval
        self._capacity = limit.capacity * self._interval
        self._most = MAX_BACKLOG_US * self._ticks_per_us
        self.slight_hits = limit.capacity // SLIGHT
        self.slight_level = self._capacity // SLIGHT // self._ticks_per_us
        self.packed = pack_limit(1, limit, *limit.emission_interval, limit.capacity)

    def calls_that_fit(self, cost: int, level: Backlog) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        if cost < 0:
            return ANY_NUMBER
        interval = self._interval
        whole_us, rest = level
        left = self._capacity - whole_us * self._ticks_per_us - rest
        if cost == 0:
            return ANY_NUMBER if left >= interval else 0
        return max(left // (cost * interval), 0)

    def calls_up_to(self, hits: int, cost: int, level: Backlog) -> int:
        """Number of equal calls after which the counter holds at most `hits`."""
        interval = self._interval
        whole_us, rest = level
        left = hits * interval - whole_us * self._ticks_per_us - rest
        return max(left // (cost * interval), 0)

    def first_number(self, hits: int) -> int:
        """The first number of a level at which `hits` are used, rounded down."""
        return hits * self._interval // self._ticks_per_us

    def outcome(self, cost: int, level: Backlog, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        ticks_per_us, interval, capacity = self._ticks_per_us, self._interval, self._capacity
        whole_us, rest = level
        after = max(min(whole_us * ticks_per_us + rest + calls * cost * interval, self._most), 0)
        reset_us = -(-after // ticks_per_us)
        if not over:
            return _new(Outcome, (False, max((capacity - after) // interval, 0), reset_us, None))
        needed = max(cost, 1) * interval
        wait_us = None if needed > capacity else -(-(after + needed - capacity) // ticks_per_us)
        return _new(Outcome, (True, 0, reset_us, wait_us))

    def countdown(self, level: Backlog) -> tuple[int, int, int, int]:
        """What admitted calls are told: (remaining, reset in ticks, ticks per hit, ticks per second)."""
        interval, ticks_per_us = self._interval, self._ticks_per_us
        whole_us, rest = level
        backlog = whole_us * ticks_per_us + rest
        return (self._capacity - backlog) // interval, backlog, interval, ticks_per_us * 1_000_000

    def used_hits(self, level: Backlog) -> int:
        """The hits that the counter holds, rounded up."""
        return -(-(level.whole_us * self._ticks_per_us + level.rest) // self._interval)

    def after(self, level: Backlog, hits: int) -> Backlog:
        """The level once the hits are taken."""
        backlog = level.whole_us * self._ticks_per_us + level.rest + hits * self._interval
        return Backlog(*divmod(max(backlog, 0), self._ticks_per_us))

    def later(self, level: Backlog, elapsed_us: int) -> Backlog:
        """The level `elapsed_us` later."""
        whole_us, rest = level
        return _new(Backlog, (whole_us - elapsed_us, rest) if elapsed_us <= whole_us else (0, 0))

    def in_terms(self, state: State, now: int) -> bool:
        """Whether the state is in this limit's terms, and not from a clock that was ahead of this one."""
        return (
            isinstance(state, Bucket)
            and state.interval == (self._interval, self._ticks_per_us)
            and (state.at_us <= now or not state.backlog)
        )

    def convert(self, state: State, now: int) -> Bucket | None:
        """The state in this limit's terms: from another emission interval, its backlog costs as many requests."""
        if isinstance(state, Bucket):
            backlog = state.backlog_at(now)
            if state.interval.ticks != self._interval:
                backlog = -(-backlog * self._interval // state.interval.ticks)
        else:
            backlog = state.used_hits(now) * self._interval
        return self._bucket(backlog, now) if backlog else None

    def level(self, state: Bucket | None, now: int) -> Backlog:
        """The level of a counter."""
        return Backlog(*divmod(state.backlog_at(now), self._ticks_per_us)) if state else Backlog(0, 0)

    def level_with_wait(self, state: Bucket | None, level: Backlog, excess: int, now: int) -> Backlog:
        """The level: it says all."""
        return level

    def take(self, state: Bucket | None, hits: int, now: int) -> Bucket:
        """The state once the hits are taken."""
        return self._bucket((state.backlog_at(now) if state else 0) + hits * self._interval, now)

    def seed(self, level: Backlog, whole: "Gcra", now: int) -> Bucket | None:
        """The state of a counter that is full again when one of the limit `whole` is."""
        rest = level.rest if whole is self else self._ticks_per_us if level.rest else 0
        backlog = level.whole_us * self._ticks_per_us + rest
        return self._bucket(backlog, now) if backlog else None

    def owed(self, before: Bucket | None, state: Bucket, now: int) -> tuple[int, ...]:
        """(ticks): what is left of the hits; as much of them has drained as has not been needed to drain `before`."""
        ticks = state.backlog_at(now) - (before.backlog_at(now) if before else 0)
        return (ticks,) if ticks > 0 else ()

    def settle(self, state: Bucket | None, owed: tuple[int, ...], now: int) -> Bucket | None:
        """The state once these ticks are added to its backlog."""
        backlog = (state.backlog_at(now) if state else 0) + sum(owed)
        return self._bucket(backlog, now) if backlog else None

    def give_back(self, state: State, hits: int, at_us: int, now: int) -> State:
        """The state without the hits, except for the part of them that may have drained since."""
        if not isinstance(state, Bucket) or state.interval != (self._interval, self._ticks_per_us) or now < at_us:
            return state
        left = hits * self._interval - (now - at_us) * self._ticks_per_us
        return self._bucket(state.backlog_at(now) - left, now) if left > 0 else state

    def _bucket(self, backlog: int, now: int) -> Bucket:
        return Bucket(now, max(min(backlog, self._most), 0), EmissionInterval(self._interval, self._ticks_per_us))
