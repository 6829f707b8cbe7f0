"""The port between the limiter and the store of counters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

from extauth.limiter.algorithms import AnyAlgorithm, Level, Outcome, algorithm_of
from extauth.rules.model import Limit


class Mode(IntEnum):
    """What follows for a request when one of its limits is over.

    ENFORCED: the request is denied. QUOTA: the request is denied only if every quota is over its limit; SAME_QUOTA is a
    further limit of the preceding quota. REPORT_ONLY: never denies, but the status says OVER_LIMIT. SHADOW: never
    denies, and the status says OK.
    """

    ENFORCED = 0
    QUOTA = 1
    SAME_QUOTA = 2
    REPORT_ONLY = 3
    SHADOW = 4


_ENFORCED = Mode.ENFORCED  # on Python 3.11 it takes as long to look a member up as to call a function


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """One limit that a call is checked against, and the number of hits (`cost`) that it takes from the counter.

    A cost of 0 only checks whether one hit would fit; a negative cost gives hits back, at most until none is counted.

    Two ways of envoyproxy/ratelimit, for fixed windows. `lenient`, of a cost of 0: it fits as long as the limit is not
    exceeded, and so where it is just used up. `stops`, of a limit that counts denied hits: those count only where this
    limit is over itself, not where another one denies the request.
    """

    limit: Limit
    cost: int
    mode: Mode = Mode.ENFORCED
    stops: bool = False
    lenient: bool = False
    algorithm: AnyAlgorithm = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "algorithm", algorithm_of(self.limit, self.stops, self.lenient))

    def calls_that_fit(self, level: Level) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        return self.algorithm.calls_that_fit(self.cost, level)

    def counted_calls(self, calls: int, admitted: int, fitting: int) -> int:
        """Number of the `calls` whose hits are counted, given that `admitted` of them are admitted.

        `fitting` is the number of calls that fit this limit.
        """
        if self.limit.count_denied:
            return admitted if self.stops and fitting > admitted else calls
        return admitted if self.mode is _ENFORCED else min(admitted, fitting)

    def hits(self, level: Level, calls: int, admitted: int) -> int:
        """The hits that the counter takes from `calls` calls, of which `admitted` are admitted."""
        if self.mode is _ENFORCED and not self.stops:
            return (calls if self.limit.count_denied else admitted) * self.cost
        return self.counted_calls(calls, admitted, self.calls_that_fit(level)) * self.cost

    def outcome(self, level: Level, call: int, admitted: int) -> Outcome:
        """The outcome of the `call`-th (from 0) of a group's equal calls, of which the first `admitted` were."""
        cost, algorithm = self.cost, self.algorithm
        fitting = algorithm.calls_that_fit(cost, level)
        before = self.counted_calls(call, min(call, admitted), fitting)  # calls that were counted when this one came
        counted = call < min(admitted, fitting) or (
            self.limit.count_denied and (not self.stops or call < admitted or fitting <= admitted)
        )
        return algorithm.outcome(cost, level, before + 1 if counted else before, over=before >= fitting)


class CounterSet:
    """The counters of one request: their names in the store, and the check for each.

    A name that occurs several times in a row is one counter with several limits that differ in their numbers only. Each
    of them is checked against the state before the call. The hits, the same in each of these checks, are taken once,
    for the last of the limits, and the state is stored in that limit's terms. Every other name occurs once.

    Compared by identity: calls that share a CounterSet are counted together. Immutable, except for `reported`, where
    counters.reported_levels notes its places.
    """

    __slots__ = ("checks", "names", "reported")

    def __init__(self, names: tuple[bytes, ...], checks: tuple[LimitCheck, ...]) -> None:
        self.names = names
        self.checks = checks
        self.reported: Any = None


class Part(CounterSet):
    """The counters of a request that lie on one shard, where others of its counters lie on other shards.

    Of a group's calls, only the first `most` may be admitted: other shards deny the rest, which count here only where
    denied hits do. With 0 the shard only reports its levels, and takes nothing else.

    `taken_at_us` is the receipt, with which hits can be given back: the instant at which the shard took them, by its
    own clock, or None if it has not. It is made for one group of one batch.
    """

    __slots__ = ("most", "taken_at_us")

    def __init__(self, names: tuple[bytes, ...], checks: tuple[LimitCheck, ...], most: int) -> None:
        self.names = names
        self.checks = checks
        self.reported = None
        self.most = most
        self.taken_at_us: int | None = None

    def taken(self, at_us: int) -> None:
        """Note the instant. Of several, the first holds: with it never too much is given back."""
        if self.taken_at_us is None or at_us < self.taken_at_us:
            self.taken_at_us = at_us


class Group(NamedTuple):
    """`calls` equal calls of a batch, in order of arrival, each of which takes from the same counters."""

    take: CounterSet
    calls: int


class Source(StrEnum):
    """Who decided about a call.

    STORE: the counters. DENIAL_CACHE: a denial that is still certain was repeated. NO_COUNTER: the call takes from no
    counter. LOCAL: counters of this replica alone, because the store is away. FAILURE_POLICY: the call could not be
    counted.
    """

    STORE = "store"
    DENIAL_CACHE = "denial_cache"
    LOCAL = "local"
    NO_COUNTER = "no_counter"
    FAILURE_POLICY = "failure_policy"


class TakeResult(NamedTuple):
    """The result for a group: its first `admitted` calls are admitted, the others are denied.

    `levels` has one Level for each check of the group's CounterSet.
    """

    admitted: int
    levels: tuple[Level, ...]
    source: Source = Source.STORE


class Uncounted(Enum):
    """A group that the store did not count in time. SENT: it was asked to, and may have counted; UNSENT: it was not."""

    UNSENT = "unsent"
    SENT = "sent"

    @classmethod
    def of(cls, *, sent: bool) -> "Uncounted":
        """The one or the other."""
        return cls.SENT if sent else cls.UNSENT


class PartlyCounted(NamedTuple):
    """A group of which some shards have counted their part, and others have not, or not in time.

    `levels` has None for each check that no shard has reported; those at `uncounted` should have been. The first
    `admitted` calls fit all that was counted; the others are denied. `how` is that of the uncounted checks.
    `quotas_open` says that a quota that was counted has room for all of these calls, whatever those that were not have.

    `finish` must be called once, at once, with the number of calls that are admitted in the end, at most `admitted`:
    what was taken for others is given back.
    """

    admitted: int
    levels: tuple[Level | None, ...]
    uncounted: tuple[int, ...]
    how: Uncounted
    quotas_open: bool
    finish: Callable[[int], None]


class Return(NamedTuple):
    """Hits to give back that a counter has taken, in vain, at the instant `at_us` of its own clock: the receipt.

    A counter takes back only what it still holds of just these hits: a fixed window in the same window, a bucket at
    most what cannot have drained since, a sliding window from the entry of that instant. Where its state is in other
    terms by now than the limit's it takes nothing back.
    """

    name: bytes
    algorithm: AnyAlgorithm
    hits: int
    at_us: int


Taken: TypeAlias = TakeResult | PartlyCounted | Uncounted
"""What became of a group."""


class Owed(NamedTuple):
    """What calls took from a counter while the store was not asked; `numbers` as LimitAlgorithm.owed gives them."""

    name: bytes
    algorithm: AnyAlgorithm
    numbers: tuple[int, ...]


class GuardedCounters(Protocol):
    """Counters that may leave out a part of a batch, or all of it."""

    async def take(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As Counters.take, except for the groups that are Uncounted. Raises StoreError where all of them are."""
        ...


class ShardedCounters(Protocol):
    """Counters that may leave out a part of a batch, or of a group."""

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As GuardedCounters.take, except for the groups that are PartlyCounted."""
        ...


class Counters(Protocol):
    """A store of counters. One contract suite holds every implementation to this."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Count all groups, one after the other, at one instant. Raises StoreError, after which hits may be counted.

        A call is admitted if its hits fit all of its enforced limits and, if it has quotas, at least one of these. Each
        of its counters then takes the hits; counters that are not enforced take them only if they fit. A call that is
        denied takes nothing, except from limits that count denied hits.
        """
        ...

    async def connect(self) -> None:
        """Return once the store has answered on the connection that `take` will use; raises StoreError."""
        ...

    async def probe(self) -> None:
        """Return if the store can count, else raise StoreError with the reason. Touches no caller's counter."""
        ...


class SharedCounters(Counters, Protocol):
    """A store that replicas share, into which they write what they counted without it."""

    def now_us(self) -> int:
        """The store's clock, as far as this process knows it."""
        ...

    async def settle(self, owed: Sequence[Owed]) -> None:
        """Add what is owed to each counter; raises StoreError, after which it may be added. It is never sent twice."""
        ...
