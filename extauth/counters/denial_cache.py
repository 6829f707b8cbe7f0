"""The local cache of sure denials: what a full counter denies now it denies until it has drained.

A limit that is used up is asked about again and again, and each time the answer is known: a level only falls with time,
and how fast is known too. So a denial is repeated from memory, without a script call, for as long as it is certain.

What it cannot see makes it deny too long, and never more than `bound_s`: a give-back, a limit that another replica has
reloaded, a flush, a fail-over, a clock that was set. It never admits anything.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from extauth.limiter.algorithms import Level
from extauth.limiter.counters import (
    Counters,
    CounterSet,
    Group,
    LimitCheck,
    Mode,
    ShardedCounters,
    Source,
    Taken,
    TakeResult,
)
from extauth.rules.model import Limit

if TYPE_CHECKING:  # stores that are no cluster spare it
    from extauth.counters.several_shards import SeveralShards

_T = TypeVar("_T")

MAX_BYTES = 6 << 20  # of entries that are learnt, and as much of the ones before them
ENTRY_BYTES = 350  # beside the counter's name
# On Python 3.11 it takes as long to look a member of an Enum up as to call a function.
_ENFORCED, _DENIAL_CACHE = Mode.ENFORCED, Source.DENIAL_CACHE
_new = tuple.__new__  # the constructor of a NamedTuple is a Python function, which takes twice as long
# Clocks run at different speeds: a denial ends by this much of its age early.
DRIFT = 1000


class _Entry(NamedTuple):
    """A counter's level after a denial; taken at some instant from `asked_us` to `told_us` of the local clock."""

    limit: Limit
    level: Level
    asked_us: int
    told_us: int


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class Denials:
    """Denials that are still sure.

    A take is denied from memory if all of its counters' levels are known from denials at most `bound_s` ago and one of
    them is surely too high. Takes that count denied hits always ask, and those in which a counter is held to several
    limits, of which only one is remembered.

    With `windows`, fixed windows that count denied hits are remembered too, and until they end: denied hits then count
    only as long as the store is asked, as with envoyproxy/ratelimit's local cache. A take is denied if all of its
    limits are surely too high, or if what it asks of the others would not be counted.
    """

    def __init__(self, bound_s: float, clock_us: Callable[[], int] = _monotonic_us, *, windows: bool = False) -> None:
        self._bound_us = int(bound_s * 1_000_000)
        self._windows = windows
        self.now_us = clock_us
        """The time by which denials are kept."""
        self._bytes = 0  # learnt since the older entries were set aside, or more
        self._entries: dict[bytes, _Entry] = {}
        self._old_entries: dict[bytes, _Entry] = {}

    def forget(self) -> list[dict[Any, Any]]:
        """Forget all denials: the rules have changed. Returns tables to be emptied bit by bit."""
        unused: list[dict[Any, Any]] = [self._entries, self._old_entries]
        self._entries, self._old_entries, self._bytes = {}, {}, 0
        return unused

    def recall(self, groups: Sequence[Group], now_us: int) -> list[TakeResult | None]:
        """The result of each group that is surely denied; empty where nothing is known."""
        return [self._recall(take, now_us) for take, _ in groups] if self._entries or self._old_entries else []

    def note(self, asked: Sequence[Group], takens: Sequence[TakeResult], asked_us: int) -> None:
        """Learn from what counters told that were asked at that instant."""
        told_us = self.now_us()
        for group, outcome in zip(asked, takens, strict=True):
            if outcome.admitted and (self._entries or self._old_entries):
                self._drop(group.take)  # what it took is not in what is known
            if outcome.admitted < group.calls:
                self._learn(group, outcome, asked_us, told_us)

    def _drop(self, take: CounterSet) -> None:
        for name in take.names:
            self._entries.pop(name, None)
            self._old_entries.pop(name, None)

    def _learn(self, group: Group, outcome: TakeResult, asked_us: int, told_us: int) -> None:
        take, calls = group
        for check in take.checks:
            if not check.algorithm.falls_evenly:
                return
            if check.limit.count_denied and not (self._windows and check.algorithm.holds_until_end):
                return
        for name, check, level in zip(take.names, take.checks, outcome.levels, strict=True):
            self._bytes += ENTRY_BYTES + len(name)
            if self._bytes > MAX_BYTES:
                self._old_entries, self._entries = self._entries, {}
                self._bytes = ENTRY_BYTES + len(name)
            self._entries[name] = _Entry(check.limit, _after(check, level, calls, outcome.admitted), asked_us, told_us)

    def _recall(self, take: CounterSet, now_us: int) -> TakeResult | None:
        levels = []
        sure = False
        for name, check in zip(take.names, take.checks, strict=True):
            entry = self._entries.get(name) or self._old_entries.get(name)
            if entry is None:
                return None
            limit, level, asked_us, told_us = entry
            if limit is not check.limit:
                return None
            algorithm = check.algorithm
            age_us = now_us - asked_us
            counts = limit.count_denied  # until its window ends, then
            if age_us > self._bound_us and not counts:
                return None
            later = algorithm.later(level, age_us + age_us // DRIFT + 1)
            over = not algorithm.calls_that_fit(check.cost, later)
            if counts and not over and (age_us > self._bound_us or not check.stops):
                return None
            sure = sure or (over and check.mode is _ENFORCED)
            # What is told errs to the other side, so that nobody is told to come too early.
            levels.append(algorithm.later(level, now_us - told_us))
        return _new(TakeResult, (0, tuple(levels), _DENIAL_CACHE)) if sure else None


class DenialCache(Denials):
    """`limiter.counters.Counters` that answers sure denials itself, and asks `counters` about all else."""

    def __init__(
        self,
        counters: Counters,
        bound_s: float,
        clock_us: Callable[[], int] = _monotonic_us,
        *,
        windows: bool = False,
    ) -> None:
        super().__init__(bound_s, clock_us, windows=windows)
        self._counters = counters

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """As Counters say; raises StoreError."""
        now_us = self.now_us()
        known = self.recall(groups, now_us)
        asked = _unknown(groups, known)
        takens = await self._counters.take(asked) if asked else []
        if asked:
            self.note(asked, takens, now_us)
        return takens if len(asked) == len(groups) else _joined(known, takens)

    async def connect(self) -> None:
        """As Counters say; raises StoreError."""
        await self._counters.connect()

    async def probe(self) -> None:
        """Return if the store counts; raises StoreError if not."""
        await self._counters.probe()


class GuardedDenialCache(Denials):
    """The same as `limiter.counters.ShardedCounters`, in front of some that may leave groups uncounted.

    It learns nothing from a take that `shards` says may shrink: its counters may hold hits that will be given back.
    """

    def __init__(
        self,
        counters: ShardedCounters,
        shards: "SeveralShards",
        bound_s: float,
        clock_us: Callable[[], int] = _monotonic_us,
        *,
        windows: bool = False,
    ) -> None:
        super().__init__(bound_s, clock_us, windows=windows)
        self._counters = counters
        self._shards = shards

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As ShardedCounters say; raises StoreError."""
        now_us = self.now_us()
        known = self.recall(groups, now_us)
        asked = _unknown(groups, known)
        if not asked:
            return [k for k in known if k is not None]
        takens = await self._counters.take(asked)
        counted = [t for t in takens if isinstance(t, TakeResult)]
        if len(counted) == len(takens):
            self.note(asked, counted, now_us)
        elif counted:
            self.note([g for g, t in zip(asked, takens, strict=True) if isinstance(t, TakeResult)], counted, now_us)
        return takens if len(asked) == len(groups) else _joined(known, takens)

    def _learn(self, group: Group, outcome: TakeResult, asked_us: int, told_us: int) -> None:
        if not self._shards.may_shrink(group.take):
            super()._learn(group, outcome, asked_us, told_us)


def _unknown(groups: Sequence[Group], known: Sequence[TakeResult | None]) -> Sequence[Group]:
    """Those of the groups whose result is not known."""
    return [g for g, k in zip(groups, known, strict=True) if k is None] if known else groups


def _joined(known: Sequence[TakeResult | None], takens: Sequence[_T]) -> list[TakeResult | _T]:
    """The results that are known, and those of the others, in the order of all groups."""
    rest = iter(takens)
    return [next(rest) if k is None else k for k in known]


def _after(check: LimitCheck, level: Level, calls: int, admitted: int) -> Level:
    """The level once the calls were taken, of which `admitted` are admitted."""
    after: Level = check.algorithm.after(level, check.hits(level, calls, admitted))
    return after
