"""The arithmetic of limits, in exact integers: from a counter's level to what a call is told.

GCRA, the generic cell rate algorithm (ITU-T I.371), as a bucket that refills evenly. The emission interval is the time
that one request costs: 60 s / 10 requests = 6 s. The theoretical arrival time (tat) is when the bucket will be full
again; each admitted request moves it on by one emission interval, and a request is admitted where that leaves the
backlog, tat minus now, at most burst x emission interval. With 10 per minute and a burst of 10: ten requests at once,
then one every 6 s.

An emission interval need not be whole microseconds (60 s / 7). It is kept as an irreducible fraction n/d, and backlogs
are counted in ticks of 1/d µs: then everything is an integer, and 7 per minute is exactly 7 per minute.

A fixed window counts hits from one multiple of the period to the next. A sliding window counts those of the last
period, whenever one looks: a hit counts from its instant, rounded up to the quantum, until a period later.
"""

from typing import NamedTuple

from extauth.limiter.counters import Level, LimitCheck, Mode
from extauth.rules.model import Algorithm

# Debt, from limits that count denied hits, is cut off here (about 142 years), so that times stay exact in a double.
MAX_BACKLOG_US = 2**52
MAX_HITS = 2**53 - 1
# Calls that a level has room for where their number is not bounded.
ANY_NUMBER = 2**53


class Outcome(NamedTuple):
    """What one call means for one counter.

    `remaining` hits are left after it, 0 where it is `over`; `reset_us` until the bucket is full (gcra), the window
    ends (fixed_window) or is empty (sliding_window). `retry_after_us` until this cost fits, where it is over: None if
    it never will.
    """

    over: bool
    remaining: int
    reset_us: int
    retry_after_us: int | None = None


def calls_that_fit(check: LimitCheck, level: Level) -> int:
    """Number of equal calls that fit the limit, from this level on."""
    limit, cost, _ = check
    if cost < 0:
        return ANY_NUMBER
    if limit.algorithm is Algorithm.GCRA:
        interval, ticks_per_us = limit.emission_interval
        left = limit.capacity * interval - level.whole * ticks_per_us - level.rest
        one = interval
    else:
        left = limit.capacity - level.whole
        one = 1
    if cost == 0:
        return ANY_NUMBER if left >= one else 0
    return max(left // (cost * one), 0)


def counted_calls(check: LimitCheck, calls: int, admitted: int, fitting: int) -> int:
    """Number of the `calls` whose hits are counted, given that `admitted` of them are admitted.

    `fitting` is the number of calls that fit this limit.
    """
    if check.limit.count_denied:
        return calls
    return admitted if check.mode is Mode.ENFORCED else min(admitted, fitting)


def outcome(check: LimitCheck, level: Level, call: int, admitted: int) -> Outcome:
    """The outcome of the `call`-th (from 0) of a group's equal calls, of which the first `admitted` were admitted."""
    limit = check.limit
    fitting = calls_that_fit(check, level)
    before = counted_calls(check, call, min(call, admitted), fitting)  # calls that had been counted when this one came
    counted = limit.count_denied or call < min(admitted, fitting)
    over = before >= fitting
    if limit.algorithm is Algorithm.GCRA:
        return _gcra(check, level, before, counted=counted, over=over)
    return _window(check, level, before, counted=counted, over=over)


def _gcra(check: LimitCheck, level: Level, before: int, *, counted: bool, over: bool) -> Outcome:
    interval, ticks_per_us = check.limit.emission_interval
    cost = check.cost * interval
    capacity = check.limit.capacity * interval
    calls = before + 1 if counted else before
    after = max(min(level.whole * ticks_per_us + level.rest + calls * cost, MAX_BACKLOG_US * ticks_per_us), 0)
    reset_us = _ceil_div(after, ticks_per_us)
    if not over:
        return Outcome(False, max((capacity - after) // interval, 0), reset_us)
    needed = max(cost, interval)
    retry_after_us = None if needed > capacity else _ceil_div(after + needed - capacity, ticks_per_us)
    return Outcome(True, 0, reset_us, retry_after_us)


def _window(check: LimitCheck, level: Level, before: int, *, counted: bool, over: bool) -> Outcome:
    limit = check.limit
    calls = before + 1 if counted else before
    used = max(level.whole + calls * check.cost, 0)
    reset_us = wait_us = level.rest
    if limit.algorithm is Algorithm.SLIDING_WINDOW:
        wait_us = level.wait
        if calls * check.cost > 0:
            reset_us = max(reset_us, limit.period_us + limit.quantum_us - 1)
        elif not used:
            reset_us = 0
    if not over:
        return Outcome(False, max(limit.capacity - used, 0), reset_us)
    return Outcome(True, 0, reset_us, None if max(check.cost, 1) > limit.capacity else wait_us)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
