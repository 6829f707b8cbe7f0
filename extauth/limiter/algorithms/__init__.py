"""The arithmetic of limits, in exact integers: an object for each limit, from a level to the outcome of a call."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from extauth.limiter.algorithms.fixed_window import FixedWindow, WindowUsage
from extauth.limiter.algorithms.gcra import Backlog, Gcra
from extauth.limiter.algorithms.outcome import ANY_NUMBER, MAX_BACKLOG_US, MAX_HITS, Outcome
from extauth.limiter.algorithms.protocol import AnyAlgorithm, State
from extauth.limiter.algorithms.sliding_window import LOG_ENTRY_BYTES, LogUsage, SlidingWindow
from extauth.rules.model import Algorithm, Limit

__all__ = (
    "ANY_NUMBER",
    "LOG_ENTRY_BYTES",
    "MAX_BACKLOG_US",
    "MAX_HITS",
    "AnyAlgorithm",
    "Backlog",
    "Level",
    "LogUsage",
    "Outcome",
    "State",
    "WindowUsage",
    "algorithm_of",
)

Level: TypeAlias = Backlog | WindowUsage | LogUsage
"""The state of a counter before a group's first call, in the terms of its limit."""

_MAKERS: dict[Algorithm, Callable[[Limit], AnyAlgorithm]] = {
    Algorithm.GCRA: Gcra,
    Algorithm.FIXED_WINDOW: FixedWindow,
    Algorithm.SLIDING_WINDOW: SlidingWindow,
}


@lru_cache(maxsize=4096)
def algorithm_of(limit: Limit, stops: bool = False, lenient: bool = False) -> AnyAlgorithm:
    """The limit's own object; `stops` and `lenient` are as LimitCheck describes them."""
    if stops or lenient:
        return FixedWindow(limit, stops=stops, lenient=lenient)
    return _MAKERS[limit.algorithm](limit)
