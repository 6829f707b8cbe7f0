"""GCRA, the generic cell rate algorithm (ITU-T I.371), as a bucket that refills evenly.

The emission interval is the time that one request costs: 60 s / 10 requests = 6 s. The theoretical arrival time (tat)
is when the bucket will be full again; each admitted request moves it on by one emission interval, and a request is
admitted where that leaves the backlog, tat minus now, at most burst x emission interval. With 10 per minute and a burst
of 10: ten requests at once, then one every 6 s.

An emission interval need not be whole microseconds (60 s / 7). It is kept as an irreducible fraction n/d, and backlogs
are counted in ticks of 1/d µs: then everything is an integer, and 7 per minute is exactly 7 per minute.
"""

from extauth.limiter.algorithms.outcome import ANY_NUMBER, MAX_BACKLOG_US, Outcome
from extauth.limiter.counters import Level
from extauth.rules.model import Limit


class Gcra:
    """A gcra limit."""

    __slots__ = ("_capacity", "_interval", "_most", "_ticks_per_us")

    def __init__(self, limit: Limit) -> None:
        self._interval, self._ticks_per_us = limit.emission_interval
        self._capacity = limit.capacity * self._interval
        self._most = MAX_BACKLOG_US * self._ticks_per_us

    def calls_that_fit(self, cost: int, level: Level) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        if cost < 0:
            return ANY_NUMBER
        interval = self._interval
        left = self._capacity - level.whole * self._ticks_per_us - level.rest
        if cost == 0:
            return ANY_NUMBER if left >= interval else 0
        return max(left // (cost * interval), 0)

    def outcome(self, cost: int, level: Level, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        ticks_per_us, interval, capacity = self._ticks_per_us, self._interval, self._capacity
        after = level.whole * ticks_per_us + level.rest + calls * cost * interval
        after = max(min(after, self._most), 0)
        reset_us = -(-after // ticks_per_us)
        if not over:
            return Outcome(False, max((capacity - after) // interval, 0), reset_us)
        needed = max(cost, 1) * interval
        return Outcome(
            True, 0, reset_us, None if needed > capacity else -(-(after + needed - capacity) // ticks_per_us)
        )

    def used_hits(self, level: Level) -> int:
        """The hits that the counter holds, rounded up."""
        return -(-(level.whole * self._ticks_per_us + level.rest) // self._interval)

    def after(self, level: Level, hits: int) -> Level:
        """The level once the hits are taken."""
        backlog = level.whole * self._ticks_per_us + level.rest + hits * self._interval
        return Level(*divmod(max(backlog, 0), self._ticks_per_us))

    def later(self, level: Level, elapsed_us: int) -> Level:
        """The level `elapsed_us` later."""
        return Level(level.whole - elapsed_us, level.rest) if elapsed_us <= level.whole else Level(0, 0)
