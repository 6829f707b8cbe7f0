"""Local counting: while the store is away each replica counts by itself, from where the store was.

A counter begins with what the store last reported about it, so that a caller who was used up stays so. When the store
is back, its counts hold again. What calls took meanwhile is *owed*, and settled in front of the counter's next take.
Calls that the store was asked about without an answer in time are counted here, and never owed: it may have counted
them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from extauth.counters.memory import MemoryCounters, are_last
from extauth.counters.reported_levels import COUNTER_BYTES, ReportedLevels
from extauth.errors import StoreError
from extauth.limiter.algorithms import AnyAlgorithm, State
from extauth.limiter.counters import Group, LimitCheck, Owed, Return, SharedCounters, TakeResult, Uncounted

OWED_BYTES = 900
MAX_BYTES = 64 << 20
SETTLED_AT_ONCE = 200  # counters in a script run, which takes Redis less than 5 ms
LOOKED_AT_ONCE = 1000


class _Debt(NamedTuple):
    """A counter as the store reported it, and as it would be had the store counted; both in the terms of its limit."""

    algorithm: AnyAlgorithm
    before: State | None
    state: State


class Settles(Protocol):
    """What takes what is owed: the store, or the one of its servers that has the counters."""

    async def settle(self, owed: Sequence[Owed]) -> None:
        """As SharedCounters."""
        ...


class LocalCounters:
    """Counters of this replica alone, in at most about `max_bytes`; `now_us` is the shared store's clock.

    Where that is several servers, `now_us_of` gives the clock of the one that has a counter.

    Half of the bytes are for what is known from the store, of which the oldest is forgotten; a counter of which nothing
    is known begins unused. A quarter is for counters: where that is full, those without room count as used up. The last
    quarter is for what is owed; what has no room is not settled.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        max_bytes: int = MAX_BYTES,
        *,
        now_us_of: Callable[[bytes], int] | None = None,
    ) -> None:
        self._now_us_of = now_us_of or (lambda _name: now_us())
        self._one_clock = now_us_of is None
        self._counters = MemoryCounters(now_us, max_bytes // 4)
        self._reported = ReportedLevels(max_bytes // 4 // COUNTER_BYTES)
        self._most_owed = max_bytes // 4 // OWED_BYTES
        self._debts: dict[bytes, _Debt] = {}

    @property
    def owes(self) -> bool:
        """Whether anything is to be settled."""
        return bool(self._debts)

    def take(self, group: Group, whole: Sequence[LimitCheck], how: Uncounted) -> TakeResult:
        """Take from this replica's own counters, whose limits may be shares of those in `whole`."""
        names, checks = group.take.names, group.take.checks
        nows = self._instants(names)
        self._begin_all(group, whole, nows)
        taken = self._counters.take_at(group, nows)
        if how is Uncounted.UNSENT:
            levels, lasts = taken.levels, are_last(names)
            for name, check, of, level, last, now in zip(names, checks, whole, levels, lasts, nows, strict=True):
                hits = check.hits(level, group.calls, taken.admitted)
                if last and hits > 0:
                    self._owe(name, of.algorithm, hits, now)
        return taken

    def would_admit(self, group: Group, whole: Sequence[LimitCheck]) -> bool:
        """Whether `take` would admit the first of the calls; takes nothing."""
        nows = self._instants(group.take.names)
        self._begin_all(group, whole, nows)
        return self._counters.would_admit(group, nows) > 0

    def remember(self, groups: Sequence[Group], takens: Sequence[TakeResult]) -> None:
        """Note what one server reported: of these counters, that holds from now on."""
        if not groups:
            return
        self._reported.remember(groups, takens, self._now_us_of(groups[0].take.names[0]))
        if len(self._counters):
            for group in groups:
                for name in group.take.names:
                    self._counters.forget(name)

    def take_back(self, returns: Sequence[Return]) -> None:
        """Note that the store took hits back."""
        self._reported.take_back(returns)

    async def settle(self, names: Iterable[bytes], store: Settles) -> None:
        """Settle what is owed to these counters; raises StoreError. What was sent is never sent again."""
        debts = {name: debt for name in names if (debt := self._debts.pop(name, None)) is not None}
        if not debts:
            return
        now = self._now_us_of(next(iter(debts)))
        owed = [
            Owed(name, algorithm, numbers)
            for name, (algorithm, before, state) in debts.items()
            if (numbers := algorithm.owed(before, state, now))
        ]
        if not owed:
            return
        try:
            await store.settle(owed)
        except StoreError as error:
            if not error.sent:
                self._debts = {**debts, **self._debts}
            raise

    async def settle_before(self, groups: Sequence[Group], store: Settles) -> None:
        """Settle what is owed to the counters of groups that the store is asked about next; raises StoreError."""
        try:
            await self.settle([name for group in groups for name in group.take.names], store)
        except StoreError as error:
            error.sent = False  # what is owed may have been, and these calls were not
            raise

    def some_debtors(self, theirs: Callable[[bytes], bool] | None = None) -> list[bytes]:
        """The names of a few counters to which something is owed; with `theirs`, of those for which it holds.

        Where these are rare they may be found in a later look: each looks at a few, and puts others last.
        """
        first = list(islice(self._debts, SETTLED_AT_ONCE if theirs is None else LOOKED_AT_ONCE))
        if theirs is None:
            return first
        found: list[bytes] = []
        for name in first:
            if not theirs(name):
                self._debts[name] = self._debts.pop(name)
            elif len(found) < SETTLED_AT_ONCE:
                found.append(name)
        return found

    def _instants(self, names: Sequence[bytes]) -> Sequence[int]:
        """Now, by the clock of each counter: by another one a window would begin anew."""
        if self._one_clock or len(names) == 1:
            return [self._now_us_of(names[0])] * len(names)
        return list(map(self._now_us_of, names))

    def _begin_all(self, group: Group, whole: Sequence[LimitCheck], nows: Sequence[int]) -> None:
        for name, check, of, now in zip(group.take.names, group.take.checks, whole, nows, strict=True):
            if not self._counters.holds(name):
                self._begin(name, check.algorithm, of.algorithm, now)

    def _begin(self, name: bytes, algorithm: AnyAlgorithm, whole: AnyAlgorithm, now: int) -> None:
        """Have a counter begin where the store's was."""
        before = self._reported.state(name, whole, now)
        if before is not None:
            state = before if algorithm is whole else algorithm.seed(whole.level(before, now), whole, now)
            if state is not None:
                self._counters.put(name, state)

    def _owe(self, name: bytes, algorithm: AnyAlgorithm, hits: int, now: int) -> None:
        debt = self._debts.get(name)
        if debt is not None and debt.algorithm is not algorithm:
            debt = _in_terms_of(algorithm, debt, now)
        if debt is None:
            if len(self._debts) >= self._most_owed and name not in self._debts:
                return
            before = self._reported.state(name, algorithm, now)
            debt = _Debt(algorithm, before, algorithm.take(before, hits, now))
        else:
            debt = debt._replace(state=algorithm.take(debt.state, hits, now))
        self._debts[name] = debt


def _in_terms_of(algorithm: AnyAlgorithm, debt: _Debt, now: int) -> _Debt | None:
    """The debt where the limit of its counter is another by now; None if nothing of it is left."""

    def own(state: State | None) -> State | None:
        if state is None or algorithm.in_terms(state, now):
            return state
        converted: State | None = algorithm.convert(state, now)
        return converted

    state = own(debt.state)
    return None if state is None else _Debt(algorithm, own(debt.before), state)


class SettlingCounters:
    """The shared store, as `limiter.counters.Counters`: it is told first what is owed, and `local` what it reports."""

    def __init__(self, counters: SharedCounters, local: LocalCounters) -> None:
        self._counters = counters
        self._local = local

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """As Counters say; however late the store answers, from then on its counts hold."""
        if self._local.owes:
            await self._local.settle_before(groups, self._counters)
        takens = await self._counters.take(groups)
        self._local.remember(groups, takens)
        return takens

    async def connect(self) -> None:
        """As Counters say; raises StoreError."""
        await self._counters.connect()

    async def probe(self) -> None:
        """Return if the store counts; raises StoreError if not."""
        await self._counters.probe()

    async def settle_some(self) -> bool:
        """Settle a part of what is owed; raises StoreError. Whether there may be more."""
        await self._local.settle(self._local.some_debtors(), self._counters)
        return self._local.owes
