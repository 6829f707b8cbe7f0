"""Counters in this process: the algorithms of redis/lua, for one replica alone."""

from collections.abc import Callable, Sequence
from typing import Any

from extauth.counters.counter_table import ENTRY_BYTES, CounterTable
from extauth.limiter.algorithms import LOG_ENTRY_BYTES, AnyAlgorithm, Level, State
from extauth.limiter.counters import Group, LimitCheck, Mode, Owed, Part, Return, TakeResult

MAX_BYTES = 256 * 1024 * 1024


class MemoryCounters:
    """`limiter.counters.Counters` in this process, in at most about `max_bytes`.

    When they are full, expired counters make room. Where that is not enough, a counter that is not held counts as used
    up, so that too much is never admitted; the others count as ever.
    `clock` gives microseconds, since the epoch or any other instant.
    """

    def __init__(self, clock: Callable[[], int], max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._states: CounterTable[State] = CounterTable(max_bytes)
        self.refusals = 0
        """How often a counter was taken for used up because there was no room for it."""

    def __len__(self) -> int:
        return len(self._states)

    async def aclose(self) -> None:
        """Nothing is open."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Take for the groups one after the other."""
        now = self._clock()
        self._states.keep_reserve(now)
        return [self._take(group, now) for group in groups]

    def take_at(self, group: Group, nows: Sequence[int]) -> TakeResult:
        """Take for one group, at an instant of each counter's own clock."""
        now = min(nows)
        self._states.keep_reserve(now)
        return self._take(group, now, nows)

    def holds(self, name: bytes) -> bool:
        """Whether there is a counter by this name."""
        return name in self._states

    def forget(self, name: bytes) -> None:
        """Delete a counter, if it is there."""
        self._states.remove(name)

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def probe(self) -> None:
        """Memory always answers."""

    def now_us(self) -> int:
        """Its clock."""
        return self._clock()

    async def settle(self, owed: Sequence[Owed]) -> None:
        """Add what is owed; what has no room is dropped, and its counter then counts as used up."""
        now = self._clock()
        for name, algorithm, numbers in owed:
            state = algorithm.settle(self._own(name, algorithm, now, keep=False), numbers, now)
            if state is not None:
                self.put(name, state)

    async def give_back(self, returns: Sequence[Return]) -> None:
        """Give hits back that were taken in vain."""
        now = self._clock()
        for name, algorithm, hits, at_us in returns:
            state = self._states.get(name)
            if state is not None and (without := algorithm.give_back(state, hits, at_us, now)) is not state:
                self.put(name, without)

    def would_admit(self, group: Group, nows: Sequence[int]) -> int:
        """The number of the calls that `take_at` would admit; takes nothing."""
        return self._look(group, nows)[0]

    def _take(self, group: Group, now: int, nows: Sequence[int] | None = None) -> TakeResult:
        part = group.take if isinstance(group.take, Part) else None
        if part is not None:
            part.taken(now)
        elif len(group.take.names) == 1 and (taken := self._take_whole(group, now)) is not None:
            return taken
        names, checks = group.take.names, group.take.checks
        if nows is None:
            nows = [now] * len(names)
        admitted, states, levels, fits = self._look(group, nows)
        for i, (name, check, last, state) in enumerate(zip(names, checks, are_last(names), states, strict=True)):
            now = nows[i]
            algorithm, cost, used = check.algorithm, check.cost, check.algorithm.used_hits(levels[i])
            hits = check.counted_calls(group.calls, admitted, fits[i]) * cost
            if fits[i] < group.calls:
                excess = used + max(hits, 0) + max(cost, 1) - check.limit.capacity
                levels[i] = algorithm.level_with_wait(state, levels[i], excess, now)
            if last and (hits > 0 or (hits < 0 and used)):
                self.put(name, algorithm.take(state, hits, now))
        return TakeResult(admitted, tuple(levels))

    def _take_whole(self, group: Group, now: int) -> TakeResult | None:
        """What `_take` does in the usual case, in less time: one counter, which is there, and admits all."""
        (name,), (check,), calls = group.take.names, group.take.checks, group.calls
        state = self._states.get(name)
        algorithm, hits = check.algorithm, calls * check.cost
        if state is None or hits <= 0 or not algorithm.in_terms(state, now):
            return None
        level = algorithm.level(state, now)
        if algorithm.calls_that_fit(check.cost, level) < calls:
            return None
        self.put(name, algorithm.take(state, hits, now))
        return TakeResult(calls, (level,))

    def _look(self, group: Group, nows: Sequence[int]) -> tuple[int, list[Any], list[Level], list[int]]:
        """The number of calls to admit; and of each check the state, the level and the number of calls that fit."""
        names, checks = group.take.names, group.take.checks
        refused = self._without_room(names, min(nows))
        states: list[Any] = [  # each of its check's own kind
            check.algorithm.take(None, check.limit.capacity, now)
            if name in refused
            else self._own(name, check.algorithm, now, keep=kept)
            for name, check, kept, now in zip(names, checks, are_last(names), nows, strict=True)
        ]
        levels = [check.algorithm.level(state, now) for state, check, now in zip(states, checks, nows, strict=True)]
        fits = [check.calls_that_fit(level) for check, level in zip(checks, levels, strict=True)]
        enforced = [fit for check, fit in zip(checks, fits, strict=True) if check.mode is Mode.ENFORCED]
        most = group.take.most if isinstance(group.take, Part) else group.calls
        admitted = min([group.calls, most, *enforced])
        if quotas := _quotas(checks, fits):
            admitted = min(admitted, max(quotas))
        return admitted, states, levels, fits

    def _without_room(self, names: Sequence[bytes], now: int) -> set[bytes]:
        """The names that have no counter, if there is no room for one each; else none."""
        missing: set[bytes] = set()
        while True:
            more = {name for name in names if name not in self._states}  # making room drops those that have expired
            if more == missing:
                return set()
            missing = more
            grown = len(names) * LOG_ENTRY_BYTES  # the logs that are held may grow by an entry each
            if not self._states.make_room(sum(map(len, missing)) + ENTRY_BYTES * len(missing) + grown, now):
                self.refusals += 1
                return {name for name in names if name not in self._states}

    def _own(self, name: bytes, algorithm: AnyAlgorithm, now: int, *, keep: bool) -> State | None:
        """The state in the terms of the limit that is checked, None where nothing is used.

        With `keep`, one in other terms, or from a clock that was ahead of this one, is rewritten even on a denial, so
        that the reply describes what is held.
        """
        state = self._states.get(name)
        if state is None or algorithm.in_terms(state, now):
            return state
        own: State | None = algorithm.convert(state, now)
        if own is not None and keep:
            self.put(name, own)
        return own

    def put(self, name: bytes, state: State) -> None:
        """Replace a counter, or add one if there is room for it; an empty one is deleted."""
        if state.is_empty:
            self._states.remove(name)
        elif not self._states.put(name, state) and name in self._states and state.merge_newest():
            self._states.put(name, state)


def are_last(names: Sequence[bytes]) -> list[bool]:
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
