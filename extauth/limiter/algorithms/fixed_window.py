"""A fixed window counts hits from one multiple of the period to the next."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from extauth.limiter.algorithms.outcome import MAX_HITS, SLIGHT, Outcome, calls_that_fit_in, share_of
from extauth.limiter.algorithms.protocol import FixedSize, State, pack_limit
from extauth.rules.model import Limit


class WindowUsage(NamedTuple):
    """A fixed_window level: `hits` counted, and the time until the window ends."""

    hits: int
    ends_in_us: int


@dataclass(slots=True)
class Window(FixedSize):
    """A fixed window that ends at `end_us`, with `used` hits."""

    end_us: int
    used: int

    def used_hits(self, now: int) -> int:
        """None once it has ended."""
        return self.used if now < self.end_us else 0

    def ends_us(self) -> int:
        """When it ends."""
        return self.end_us


class FixedWindow:
    """A fixed_window limit; `stops` and `lenient` are as LimitCheck describes them."""

    cost_us: ClassVar = 5
    falls_evenly: ClassVar = True
    holds_until_end: ClassVar = True
    numbers: ClassVar = 2
    read: ClassVar = WindowUsage

    __slots__ = ("_checked", "_period_us", "capacity", "packed", "slight_hits", "slight_level")

    def __init__(self, limit: Limit, *, stops: bool = False, lenient: bool = False) -> None:
        self.capacity = limit.capacity
        # A check whether a hit would fit one more than the limit is a check whether the limit is not exceeded.
        self._checked = limit.capacity + lenient
        self._period_us = limit.period_us
        self.slight_hits = self.slight_level = limit.capacity // SLIGHT
        self.packed = pack_limit(2, limit, limit.period_us, self._checked, 0, stops=stops)

    def calls_that_fit(self, cost: int, level: WindowUsage) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        return calls_that_fit_in(self._checked - level.hits, cost)

    def calls_up_to(self, hits: int, cost: int, level: WindowUsage) -> int:
        """Number of equal calls after which the counter holds at most `hits`."""
        return calls_that_fit_in(hits - level.hits, cost)

    def first_number(self, hits: int) -> int:
        """The first number of a level at which `hits` are used."""
        return hits

    def outcome(self, cost: int, level: WindowUsage, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted."""
        ends_in_us = level.ends_in_us
        if not over:
            used = max(level.hits + calls * cost, 0)
            return Outcome(False, max(self.capacity - used, 0), ends_in_us)
        return Outcome(True, 0, ends_in_us, None if max(cost, 1) > self.capacity else ends_in_us)

    def countdown(self, level: WindowUsage) -> tuple[int, int, int, int]:
        """What admitted calls are told: (remaining, reset in ticks, ticks per hit, ticks per second)."""
        return self.capacity - level.hits, level.ends_in_us, 0, 1_000_000

    def used_hits(self, level: WindowUsage) -> int:
        """The hits that the counter holds."""
        return level.hits

    def after(self, level: WindowUsage, hits: int) -> WindowUsage:
        """The level once the hits are taken."""
        return WindowUsage(max(level.hits + hits, 0), level.ends_in_us)

    def later(self, level: WindowUsage, elapsed_us: int) -> WindowUsage:
        """The level `elapsed_us` later."""
        left_us = level.ends_in_us - elapsed_us
        return WindowUsage(level.hits, left_us) if left_us > 0 else WindowUsage(0, 0)

    def in_terms(self, state: State, now: int) -> bool:
        """Whether the state is in this limit's terms, and not from a clock that was ahead of this one."""
        return isinstance(state, Window) and (state.end_us == self._end_us(now) or now >= state.end_us)

    def convert(self, state: State, now: int) -> Window | None:
        """The state in this limit's terms: its hits count until this window ends."""
        hits = state.used_hits(now)
        return Window(self._end_us(now), hits) if hits else None

    def level(self, state: Window | None, now: int) -> WindowUsage:
        """The level of a counter."""
        return WindowUsage(state.used_hits(now) if state else 0, self._end_us(now) - now)

    def level_with_wait(self, state: Window | None, level: WindowUsage, excess: int, now: int) -> WindowUsage:
        """The level: it says all."""
        return level

    def take(self, state: Window | None, hits: int, now: int) -> Window:
        """The state once the hits are taken."""
        used = state.used_hits(now) if state else 0
        return Window(self._end_us(now), max(min(used + hits, MAX_HITS), 0))

    def seed(self, level: WindowUsage, whole: "FixedWindow", now: int) -> Window | None:
        """The state of a counter that has used as much of this limit, in parts of it, as one of `whole` has of that."""
        hits = share_of(level.hits, self.capacity, whole.capacity)
        return Window(now + level.ends_in_us, hits) if hits and level.ends_in_us > 0 else None

    def owed(self, before: Window | None, state: Window, now: int) -> tuple[int, ...]:
        """(end of the window, hits), or nothing once it has ended."""
        hits = state.used_hits(now) - (before.used_hits(now) if before and before.end_us == state.end_us else 0)
        return (state.end_us, hits) if hits > 0 else ()

    def settle(self, state: Window | None, owed: tuple[int, ...], now: int) -> Window | None:
        """The state once the hits are added, if they are of the window that now is."""
        end_us, hits = owed
        return self.take(state, hits, now) if end_us == self._end_us(now) else state

    def give_back(self, state: State, hits: int, at_us: int, now: int) -> State:
        """The state without the hits, in the window in which they were taken."""
        if not isinstance(state, Window) or state.end_us != self._end_us(at_us) or now >= state.end_us:
            return state
        return Window(state.end_us, max(state.used - hits, 0))

    def _end_us(self, now: int) -> int:
        return now - now % self._period_us + self._period_us
