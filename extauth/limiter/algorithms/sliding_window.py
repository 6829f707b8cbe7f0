"""A sliding window counts the hits of the last period, whenever one looks.

A hit counts from its instant, rounded up to the quantum, until a period later.
"""

from extauth.limiter.algorithms.fixed_window import FixedWindow
from extauth.limiter.algorithms.outcome import Outcome
from extauth.limiter.counters import Level
from extauth.rules.model import Limit


class SlidingWindow(FixedWindow):
    """A sliding_window limit: its usage is compared as a fixed window's, but leaves bit by bit."""

    __slots__ = ("_longest_us",)

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self._longest_us = limit.period_us + limit.quantum_us - 1

    def outcome(self, cost: int, level: Level, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        hits = calls * cost
        used = max(level.whole + hits, 0)
        reset_us = max(level.rest, self._longest_us) if hits > 0 else level.rest if used else 0
        if not over:
            return Outcome(False, max(self._capacity - used, 0), reset_us)
        return Outcome(True, 0, reset_us, None if max(cost, 1) > self._capacity else level.wait)
