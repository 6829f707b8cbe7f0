"""A fixed window counts hits from one multiple of the period to the next."""

from extauth.limiter.algorithms.outcome import ANY_NUMBER, Outcome
from extauth.limiter.counters import Level
from extauth.rules.model import Limit


class FixedWindow:
    """A fixed_window limit."""

    __slots__ = ("_capacity",)

    def __init__(self, limit: Limit) -> None:
        self._capacity = limit.capacity

    def calls_that_fit(self, cost: int, level: Level) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        if cost < 0:
            return ANY_NUMBER
        left = self._capacity - level.whole
        if cost == 0:
            return ANY_NUMBER if left >= 1 else 0
        return max(left // cost, 0)

    def outcome(self, cost: int, level: Level, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        if not over:
            used = max(level.whole + calls * cost, 0)
            return Outcome(False, max(self._capacity - used, 0), level.rest)
        return Outcome(True, 0, level.rest, None if max(cost, 1) > self._capacity else level.rest)

    def used_hits(self, level: Level) -> int:
        """The hits that the counter holds."""
        return level.whole

    def after(self, level: Level, hits: int) -> Level:
        """The level once the hits are taken."""
        return Level(max(level.whole + hits, 0), level.rest)

    def later(self, level: Level, elapsed_us: int) -> Level:
        """The level `elapsed_us` later."""
        return Level(level.whole, level.rest - elapsed_us) if elapsed_us < level.rest else Level(0, 0)
