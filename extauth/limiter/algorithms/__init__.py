"""The arithmetic of limits, in exact integers: an object for each limit, from a level to the outcome of a call."""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from extauth.limiter.algorithms.fixed_window import FixedWindow
from extauth.limiter.algorithms.gcra import Gcra
from extauth.limiter.algorithms.outcome import ANY_NUMBER, MAX_BACKLOG_US, MAX_HITS, Outcome
from extauth.limiter.algorithms.sliding_window import SlidingWindow
from extauth.limiter.counters import Level, LimitCheck, Mode
from extauth.rules.model import Algorithm, Limit

__all__ = (
    "ANY_NUMBER",
    "MAX_BACKLOG_US",
    "MAX_HITS",
    "LimitAlgorithm",
    "Outcome",
    "algorithm_of",
    "calls_that_fit",
    "counted_calls",
    "outcome",
)


class LimitAlgorithm(Protocol):
    """How one limit counts."""

    def calls_that_fit(self, cost: int, level: Level) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        ...

    def outcome(self, cost: int, level: Level, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted, its own among them if they are."""
        ...

    def used_hits(self, level: Level) -> int:
        """The hits that the counter holds."""
        ...

    def after(self, level: Level, hits: int) -> Level:
        """The level once the hits are taken."""
        ...

    def later(self, level: Level, elapsed_us: int) -> Level:
        """The level `elapsed_us` later."""
        ...


_MAKERS: dict[Algorithm, Callable[[Limit], LimitAlgorithm]] = {
    Algorithm.GCRA: Gcra,
    Algorithm.FIXED_WINDOW: FixedWindow,
    Algorithm.SLIDING_WINDOW: SlidingWindow,
}


@lru_cache(maxsize=4096)
def algorithm_of(limit: Limit) -> LimitAlgorithm:
    """The limit's own object."""
    return _MAKERS[limit.algorithm](limit)


def calls_that_fit(check: LimitCheck, level: Level) -> int:
    """Number of equal calls that fit the limit, from this level on."""
    return algorithm_of(check.limit).calls_that_fit(check.cost, level)


def counted_calls(check: LimitCheck, calls: int, admitted: int, fitting: int) -> int:
    """Number of the `calls` whose hits are counted, given that `admitted` of them are admitted.

    `fitting` is the number of calls that fit this limit.
    """
    if check.limit.count_denied:
        return calls
    return admitted if check.mode is Mode.ENFORCED else min(admitted, fitting)


def outcome(check: LimitCheck, level: Level, call: int, admitted: int) -> Outcome:
    """The outcome of the `call`-th (from 0) of a group's equal calls, of which the first `admitted` were admitted."""
    limit, cost, _ = check
    algorithm = algorithm_of(limit)
    fitting = algorithm.calls_that_fit(cost, level)
    before = counted_calls(check, call, min(call, admitted), fitting)  # calls that had been counted when this one came
    counted = limit.count_denied or call < min(admitted, fitting)
    return algorithm.outcome(cost, level, before + 1 if counted else before, over=before >= fitting)
