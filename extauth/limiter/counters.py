"""The port between the limiter and the store of counters."""

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol

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


class LimitCheck(NamedTuple):
    """One limit that a call is checked against, and the number of hits (`cost`) that it takes from the counter.

    A cost of 0 only checks whether one hit would fit; a negative cost gives hits back, at most until none is counted.
    """

    limit: Limit
    cost: int
    mode: Mode = Mode.ENFORCED


class CounterSet:
    """The counters of one request: their names in the store, and the check for each.

    A name that occurs several times in a row is one counter with several limits that differ in their numbers only. Each
    of them is checked against the state before the call. The hits, the same in each of these checks, are taken once,
    for the last of the limits, and the state is stored in that limit's terms. Every other name occurs once.

    Compared by identity: calls that share a CounterSet are counted together. Immutable.
    """

    __slots__ = ("checks", "names")

    def __init__(self, names: tuple[bytes, ...], checks: tuple[LimitCheck, ...]) -> None:
        self.names = names
        self.checks = checks


class Group(NamedTuple):
    """`calls` equal calls of a batch, in order of arrival, each of which takes from the same counters."""

    take: CounterSet
    calls: int


class Level(NamedTuple):
    """The state of a counter before a group's first call, in the terms of its limit.

    gcra: the backlog, the time until the bucket is full again, as `whole` microseconds plus `rest` / the denominator
    of the emission interval. fixed_window: `whole` hits counted, and `rest` microseconds until the window ends.
    sliding_window: `whole` hits counted, `rest` microseconds until the last of them is out of the window, and `wait`
    until the group's first call that found no room would find it (its last one, where denied hits count).
    """

    whole: int
    rest: int
    wait: int = 0


class Source(StrEnum):
    """Who decided about a call.

    STORE: the counters. DENIAL_CACHE: a denial that is still certain was repeated. NO_COUNTER: the call takes from no
    counter. FAILURE_POLICY: the call could not be counted.
    """

    STORE = "store"
    DENIAL_CACHE = "denial_cache"
    NO_COUNTER = "no_counter"
    FAILURE_POLICY = "failure_policy"


class TakeResult(NamedTuple):
    """The result for a group: its first `admitted` calls are admitted, the others are denied.

    `levels` has one Level for each check of the group's CounterSet.
    """

    admitted: int
    levels: tuple[Level, ...]
    source: Source = Source.STORE


class Counters(Protocol):
    """A store of counters. One contract suite holds every implementation to this."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Count all groups, one after the other, at one instant. Raises StoreError, after which hits may be counted.

        A call is admitted if its hits fit all of its enforced limits and, if it has quotas, at least one of these. Each
        of its counters then takes the hits; counters that are not enforced take them only if they fit. A call that is
        denied takes nothing, except from limits that count denied hits.
        """
        ...

    async def probe(self) -> None:
        """Return if the store can count, else raise StoreError with the reason. Touches no caller's counter."""
        ...
