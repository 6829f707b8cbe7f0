"""Counters in this process: the algorithms of lua/take.lua, for one replica alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extauth.limiter.algorithms import MAX_BACKLOG_US, MAX_HITS
from extauth.limiter.counters import Ask, Group, Level, Taken
from extauth.rules.model import Algorithm, EmissionInterval, Limit


@dataclass(slots=True)
class _Bucket:
    """A gcra counter: `backlog` ticks at `at_us`, at an emission interval."""

    at_us: int
    backlog: int
    interval: EmissionInterval

    def backlog_at(self, now: int) -> int:
        return max(self.backlog - max(now - self.at_us, 0) * self.interval.ticks_per_us, 0)

    def ends_us(self) -> int:
        return self.at_us - (-self.backlog // self.interval.ticks_per_us)


@dataclass(slots=True)
class _Window:
    """A fixed window that ends at `end_us`, with `used` hits."""

    end_us: int
    used: int

    def ends_us(self) -> int:
        return self.end_us


class MemoryCounters:
    """`limiter.counters.Counters` in a dict of at most `max_counters`.

    When it is full, what can no longer matter goes first, then what was written longest ago.
    `clock` gives microseconds since the epoch.
    """

    def __init__(self, clock: Callable[[], int], max_counters: int = 1_000_000) -> None:
        self._clock = clock
        self._max_counters = max_counters
        self._states: dict[bytes, _Bucket | _Window] = {}

    def __len__(self) -> int:
        return len(self._states)

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        """Take for the groups one after the other."""
        now = self._clock()
        return [self._take(group, now) for group in groups]

    async def ping(self) -> None:
        """Memory always answers."""

    def _take(self, group: Group, now: int) -> Taken:
        names, asks = group.take.names, group.take.asks
        used = [_used(self._states.get(name), ask.limit, now) for name, ask in zip(names, asks, strict=True)]
        fits = ((_capacity(ask.limit) - u) // _cost(ask) for ask, u in zip(asks, used, strict=True))
        admitted = max(min(group.calls, *fits), 0)
        for name, ask, before in zip(names, asks, used, strict=True):
            calls = group.calls if ask.limit.count_denied else admitted
            # Rewritten even on a denial where the state is in other terms, so that what is told is what holds.
            if calls or (before and not _holds(self._states[name], ask.limit, now)):
                self._put(name, ask.limit, before + calls * _cost(ask), now)
        return Taken(admitted, tuple(_level(ask.limit, u, now) for ask, u in zip(asks, used, strict=True)))

    def _put(self, name: bytes, limit: Limit, used: int, now: int) -> None:
        self._states.pop(name, None)
        if len(self._states) >= self._max_counters:
            self._states = {name: state for name, state in self._states.items() if state.ends_us() > now}
            if len(self._states) >= self._max_counters:
                del self._states[next(iter(self._states))]
        if limit.algorithm is Algorithm.GCRA:
            interval = limit.emission_interval
            backlog = min(used, MAX_BACKLOG_US * interval.ticks_per_us)
            self._states[name] = _Bucket(now, backlog, interval)
        else:
            self._states[name] = _Window(_window_end(limit, now), min(used, MAX_HITS))


# What a counter has used, its capacity and a call's cost are in ticks for gcra, in hits for fixed_window.


def _used(state: _Bucket | _Window | None, limit: Limit, now: int) -> int:
    gcra = limit.algorithm is Algorithm.GCRA
    interval = limit.emission_interval
    most = MAX_BACKLOG_US * interval.ticks_per_us if gcra else MAX_HITS
    if isinstance(state, _Window) and now < state.end_us:
        return min(state.used * interval.ticks if gcra else state.used, most)
    if isinstance(state, _Bucket):
        backlog = state.backlog_at(now)
        if gcra and state.interval == interval:
            return backlog
        return min(-(-backlog * (interval.ticks if gcra else 1) // state.interval.ticks), most)
    return 0


def _holds(state: _Bucket | _Window, limit: Limit, now: int) -> bool:
    """Whether the state is in the limit's own terms, and not from a clock that was ahead of this one."""
    if isinstance(state, _Window):
        return limit.algorithm is Algorithm.FIXED_WINDOW and state.end_us == _window_end(limit, now)
    return limit.algorithm is Algorithm.GCRA and state.interval == limit.emission_interval and state.at_us <= now


def _capacity(limit: Limit) -> int:
    gcra = limit.algorithm is Algorithm.GCRA
    return limit.burst * limit.emission_interval.ticks if gcra else limit.requests_per_unit


def _cost(ask: Ask) -> int:
    gcra = ask.limit.algorithm is Algorithm.GCRA
    return ask.cost * ask.limit.emission_interval.ticks if gcra else ask.cost


def _level(limit: Limit, used: int, now: int) -> Level:
    if limit.algorithm is Algorithm.GCRA:
        return Level(*divmod(used, limit.emission_interval.ticks_per_us))
    return Level(used, _window_end(limit, now) - now)


def _window_end(limit: Limit, now: int) -> int:
    return now - now % limit.period_us + limit.period_us
