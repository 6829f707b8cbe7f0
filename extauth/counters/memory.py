"""Counters in this process: the algorithms of redis/lua, for one replica alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from extauth.counters.counter_table import ENTRY_BYTES, CounterTable
from extauth.limiter.algorithms import MAX_BACKLOG_US, MAX_HITS, calls_that_fit, counted_calls
from extauth.limiter.counters import Group, Level, LimitCheck, Mode, TakeResult
from extauth.rules.model import MAX_EXACT, Algorithm, EmissionInterval, Limit


@dataclass(slots=True)
class _Bucket:
    """A gcra counter: `backlog` ticks at `at_us`, at an emission interval."""

    at_us: int
    backlog: int
    interval: EmissionInterval

    def backlog_at(self, now: int) -> int:
        return max(self.backlog - max(now - self.at_us, 0) * self.interval.ticks_per_us, 0)

    def hits(self, now: int) -> int:
        return min(-(-self.backlog_at(now) // self.interval.ticks), MAX_HITS)

    def ends_us(self) -> int:
        return self.at_us - (-self.backlog // self.interval.ticks_per_us)

    def more_bytes(self) -> int:
        return 0


@dataclass(slots=True)
class _Window:
    """A fixed window that ends at `end_us`, with `used` hits."""

    end_us: int
    used: int

    def hits(self, now: int) -> int:
        return self.used if now < self.end_us else 0

    def ends_us(self) -> int:
        return self.end_us

    def more_bytes(self) -> int:
        return 0


@dataclass(slots=True)
class _Log:
    """A sliding window: `totals[i]` hits since the log began, up to and with those at `times[i]`.

    `base` hits are out of the window and out of the log. What is read changes nothing: another limit, with a longer
    window, may come next.
    """

    period_us: int
    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    base: int = 0

    def hits(self, now: int) -> int:
        return self.used(now, self.period_us)

    def used(self, now: int, period_us: int) -> int:
        return self.totals[-1] - self._gone(now, period_us)[1]

    def ends_us(self) -> int:
        return self.times[-1] + self.period_us

    def more_bytes(self) -> int:
        return (len(self.times) - 1) * _LOG_ENTRY_BYTES

    def join_newest(self) -> None:
        """Make one of the two newest entries: the hits of both count until the later one leaves the window."""
        del self.times[-2], self.totals[-2]

    def wait_us(self, excess: int, now: int, period_us: int) -> int:
        """Until so many hits are out of the window."""
        base = self._gone(now, period_us)[1]
        return max(self.times[bisect_left(self.totals, base + excess)] + period_us - now, 1)

    def after(self, hits: int, now: int, limit: Limit) -> "_Log":
        """The log once so many hits were taken, or given back: the newest first."""
        gone, base = self._gone(now, limit.period_us)
        log = _Log(limit.period_us, self.times[gone:], self.totals[gone:], base)
        stamp, total = _stamp(limit, now), min(self.totals[-1] + hits, MAX_HITS)
        if hits == 0:
            return log
        if hits < 0:
            last = bisect_left(log.totals, max(total, base + 1)) if total > base else -1
            del log.times[last + 1 :], log.totals[last + 1 :]
        elif not log.times or (log.times[-1] < stamp and len(log.times) < MAX_EXACT):
            log.times.append(stamp)
            log.totals.append(total)
        else:
            log.times[-1] = max(log.times[-1], stamp)
        if log.totals:
            log.totals[-1] = total
        return log

    def _gone(self, now: int, period_us: int) -> tuple[int, int]:
        """How many entries are out of the window, and how many hits before the first that is not."""
        gone = bisect_right(self.times, now - period_us)
        return gone, self.totals[gone - 1] if gone else self.base


_State = _Bucket | _Window | _Log
_LOG_ENTRY_BYTES = 96  # two integers, and their places in two lists

MAX_BYTES = 256 * 1024 * 1024


class MemoryCounters:
    """`limiter.counters.Counters` in this process, in at most about `max_bytes`.

    When they are full, expired counters make room. Where that is not enough, a counter that is not held counts as used
    up, so that too much is never admitted; the others count as ever.
    `clock` gives microseconds, since the epoch or any other instant.
    """

    def __init__(self, clock: Callable[[], int], max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._states: CounterTable[_State] = CounterTable(max_bytes)

    def __len__(self) -> int:
        return len(self._states)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Take for the groups one after the other."""
        now = self._clock()
        self._states.keep_reserve(now)
        return [self._take(group, now) for group in groups]

    async def probe(self) -> None:
        """Memory always answers."""

    def _take(self, group: Group, now: int) -> TakeResult:
        (names, checks), calls = (group.take.names, group.take.checks), group.calls
        last = _are_last(names)
        refused = self._without_room(names, now)
        states = [
            _after(None, check.limit, check.limit.capacity, now)
            if name in refused
            else self._own(name, check.limit, now, keep=kept)
            for name, check, kept in zip(names, checks, last, strict=True)
        ]
        levels = [_level(state, check.limit, now) for state, check in zip(states, checks, strict=True)]
        fits = [calls_that_fit(check, level) for check, level in zip(checks, levels, strict=True)]
        admitted = min([calls, *(fit for check, fit in zip(checks, fits, strict=True) if check.mode is Mode.ENFORCED)])
        if quotas := _quotas(checks, fits):
            admitted = min(admitted, max(quotas))
        for i, (name, check, state) in enumerate(zip(names, checks, states, strict=True)):
            takes = counted_calls(check, calls, admitted, fits[i])
            if check.limit.algorithm is Algorithm.SLIDING_WINDOW and fits[i] < calls:
                excess = levels[i].whole + max(takes * check.cost, 0) + max(check.cost, 1) - check.limit.capacity
                levels[i] = levels[i]._replace(wait=_wait_us(state, check.limit, excess, levels[i].whole, now))
            held = levels[i].whole or (check.limit.algorithm is Algorithm.GCRA and levels[i].rest)
            if last[i] and (takes * check.cost > 0 or (takes * check.cost < 0 and held)):
                self._put(name, _after(state, check.limit, takes * check.cost, now))
        return TakeResult(admitted, tuple(levels))

    def _without_room(self, names: Sequence[bytes], now: int) -> set[bytes]:
        """The names that have no counter, if there is no room for one each; else none."""
        missing: set[bytes] = set()
        while True:
            more = {name for name in names if name not in self._states}  # making room drops those that have expired
            if more == missing:
                return set()
            missing = more
            grown = len(names) * _LOG_ENTRY_BYTES  # the logs that are held may grow by an entry each
            if not self._states.make_room(sum(map(len, missing)) + ENTRY_BYTES * len(missing) + grown, now):
                return {name for name in names if name not in self._states}

    def _own(self, name: bytes, limit: Limit, now: int, *, keep: bool) -> _State | None:
        """The state in the limit's own terms, None where nothing is used.

        With `keep`, one in other terms, or from a clock that was ahead of this one, is rewritten even on a denial, so
        that what is told is what holds.
        """
        state = self._states.get(name)
        if state is None or _in_terms(state, limit, now):
            return state
        own: _State | None
        if isinstance(state, _Bucket) and limit.algorithm is Algorithm.GCRA:
            old, new = state.interval, limit.emission_interval
            level = state.backlog_at(now)
            level = level if old == new else -(-level * new.ticks // old.ticks)
            own = _bucket(limit, level, now) if level else None
        else:
            same = isinstance(state, _Log) and limit.algorithm is Algorithm.SLIDING_WINDOW
            if same and isinstance(state, _Log) and _near(state, limit, now):
                own = state.after(0, now, limit)
            else:
                hits = state.used(now, limit.period_us) if same and isinstance(state, _Log) else state.hits(now)
                own = _after(None, limit, hits, now) if hits else None
        if own is not None and keep:
            self._put(name, own)
        return own

    def _put(self, name: bytes, state: _State) -> None:
        if isinstance(state, _Log) and not state.times:
            self._states.remove(name)
        elif not self._states.put(name, state) and isinstance(state, _Log) and name in self._states:
            state.join_newest()  # a log that is held takes no more room than it has
            self._states.put(name, state)


def _are_last(names: Sequence[bytes]) -> list[bool]:
    """Of each name, whether it is the last of those in a row that are the same."""
    return [name != after for name, after in zip(names, (*names[1:], None), strict=True)]


def _quotas(checks: Sequence[LimitCheck], fits: Sequence[int]) -> list[int]:
    quotas: list[int] = []
    for check, fit in zip(checks, fits, strict=True):
        if check.mode is Mode.QUOTA:
            quotas.append(fit)
        elif check.mode is Mode.SAME_QUOTA:
            quotas[-1] = min(quotas[-1], fit)
    return quotas


def _in_terms(state: _State, limit: Limit, now: int) -> bool:
    """Whether the state is in the limit's own terms, and not from a clock that was ahead of this one."""
    match state:
        case _Bucket():
            own = limit.algorithm is Algorithm.GCRA and state.interval == limit.emission_interval
            return own and (state.at_us <= now or not state.backlog)
        case _Window():
            own = limit.algorithm is Algorithm.FIXED_WINDOW
            return own and (state.end_us == _window_end(limit, now) or now >= state.end_us)
        case _Log():
            own = limit.algorithm is Algorithm.SLIDING_WINDOW
            if state.period_us != limit.period_us and state.used(now, limit.period_us):
                return False
            return own and (not state.used(now, limit.period_us) or _near(state, limit, now))


def _near(log: _Log, limit: Limit, now: int) -> bool:
    """Whether the log is not from a clock that was far ahead: less than a tenth of the window is waited out."""
    return log.times[-1] - now <= limit.quantum_us + limit.period_us // 10


def _level(state: _State | None, limit: Limit, now: int) -> Level:
    match state:
        case _Bucket():
            return Level(*divmod(state.backlog_at(now), limit.emission_interval.ticks_per_us))
        case _Log():
            used = state.used(now, limit.period_us)
            return Level(used, state.times[-1] + limit.period_us - now if used else 0)
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        return Level(state.hits(now) if state else 0, _window_end(limit, now) - now)
    return Level(0, 0)


def _after(state: _State | None, limit: Limit, hits: int, now: int) -> _State:
    """The state once so many hits were taken; it is in the limit's own terms."""
    if limit.algorithm is Algorithm.GCRA:
        backlog = state.backlog_at(now) if isinstance(state, _Bucket) else 0
        return _bucket(limit, backlog + hits * limit.emission_interval.ticks, now)
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        used = state.hits(now) if state else 0
        return _Window(_window_end(limit, now), max(min(used + hits, MAX_HITS), 0))
    if isinstance(state, _Log):
        return state.after(hits, now, limit)
    stamp = _stamp(limit, now)
    return _Log(limit.period_us, [stamp], [hits])


def _bucket(limit: Limit, backlog: int, now: int) -> _Bucket:
    interval = limit.emission_interval
    return _Bucket(now, max(min(backlog, MAX_BACKLOG_US * interval.ticks_per_us), 0), interval)


def _wait_us(state: _State | None, limit: Limit, excess: int, used: int, now: int) -> int:
    if excess <= 0:
        return 0
    if isinstance(state, _Log) and excess <= used:
        return state.wait_us(excess, now, limit.period_us)
    newest = state.times[-1] if isinstance(state, _Log) and used else 0
    return max(_stamp(limit, now), newest) + limit.period_us - now


def _stamp(limit: Limit, now: int) -> int:
    return -(-now // limit.quantum_us) * limit.quantum_us


def _window_end(limit: Limit, now: int) -> int:
    return now - now % limit.period_us + limit.period_us
