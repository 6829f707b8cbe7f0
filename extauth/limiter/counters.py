"""What the limiter asks of the place where counts live."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from extauth.rules.model import Limit


class Counter(NamedTuple):
    """A counter to take from: its name in the store, the limit it is held to, and the hits one call asks for (≥ 1)."""

    name: bytes
    limit: Limit
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """The counters of one request, each name once; they are taken from together or, on a denial, not at all.

    (But for limits that count denied hits.) Compared by identity: calls that share a Take are counted together.
    """

    counters: tuple[Counter, ...]


class Group(NamedTuple):
    """`calls` equal calls of a batch: each one asks for `take`, in order of arrival."""

    take: Take
    calls: int


class Level(NamedTuple):
    """What a counter held before a group's first call, in the terms of the limit that the group asks for.

    gcra: the backlog, the time until the bucket is full again, as `whole` microseconds plus `rest` / the denominator
    of the emission interval. fixed_window: `whole` hits counted, and `rest` microseconds until the window ends.
    """

    whole: int
    rest: int


class Taken(NamedTuple):
    """The outcome of a group: its first `admitted` calls are within all limits, the others are not.

    `levels` has one Level a counter of the group's Take.
    """

    admitted: int
    levels: tuple[Level, ...]


class Counters(Protocol):
    """A store of counters. One contract suite holds every implementation to this."""

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        """Take for all groups, one after the other, at one instant; raises StoreError, and then may have counted."""
        ...

    async def ping(self) -> None:
        """Return if the store answers; raises StoreError if not."""
        ...
