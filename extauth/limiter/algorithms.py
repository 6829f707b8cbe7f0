"""The arithmetic of limits, in exact integers: from a counter's level to what a call is told.

GCRA, the generic cell rate algorithm (ITU-T I.371), as a bucket that refills evenly. The emission interval is the time
that one request costs: 60 s / 10 requests = 6 s. The theoretical arrival time (tat) is when the bucket will be full
again; each admitted request moves it on by one emission interval, and a request is admitted where that leaves the
backlog, tat minus now, at most burst x emission interval. With 10 per minute and a burst of 10: ten requests at once,
then one every 6 s.

An emission interval need not be whole microseconds (60 s / 7). It is kept as an irreducible fraction n/d, and backlogs
are counted in ticks of 1/d µs: then everything is an integer, and 7 per minute is exactly 7 per minute.
"""

from typing import NamedTuple

from extauth.limiter.counters import Ask, Level
from extauth.rules.model import Algorithm

# Debt, from limits that count denied hits, is cut off here (about 142 years), so that times stay exact in a double.
MAX_BACKLOG_US = 2**52
MAX_HITS = 2**53 - 1


class Outcome(NamedTuple):
    """What one call means for one counter.

    `remaining` hits are left after it, 0 where it is `over`; `reset_us` until the bucket is full (gcra) or the window
    ends. `retry_after_us` until this cost fits, where it is over: None if it never will.
    """

    over: bool
    remaining: int
    reset_us: int
    retry_after_us: int | None = None


def outcome(ask: Ask, level: Level, call: int, admitted: int) -> Outcome:
    """The outcome of the `call`-th (from 0) of a group's equal calls, of which the first `admitted` were admitted."""
    limit = ask.limit
    before = call if limit.count_denied else min(call, admitted)  # how many calls had been counted when this one came
    counted = limit.count_denied or call < admitted
    if limit.algorithm is Algorithm.GCRA:
        return _gcra(ask, level, before, counted=counted)
    return _fixed_window(ask, level, before, counted=counted)


def _gcra(ask: Ask, level: Level, before: int, *, counted: bool) -> Outcome:
    interval, ticks_per_us = ask.limit.emission_interval
    cost = ask.cost * interval
    capacity = ask.limit.burst * interval
    most = MAX_BACKLOG_US * ticks_per_us
    backlog = min(level.whole * ticks_per_us + level.rest + before * cost, most)
    over = backlog + cost > capacity
    after = min(backlog + cost, most) if counted else backlog
    reset_us = _ceil_div(after, ticks_per_us)
    if not over:
        return Outcome(False, (capacity - after) // interval, reset_us)
    retry_after_us = None if cost > capacity else _ceil_div(after + cost - capacity, ticks_per_us)
    return Outcome(True, 0, reset_us, retry_after_us)


def _fixed_window(ask: Ask, level: Level, before: int, *, counted: bool) -> Outcome:
    limit = ask.limit.requests_per_unit
    used = level.whole + before * ask.cost
    over = used + ask.cost > limit
    if not over:
        return Outcome(False, limit - used - (ask.cost if counted else 0), level.rest)
    return Outcome(True, 0, level.rest, None if ask.cost > limit else level.rest)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
