"""What the limiter asks of the place where counts live."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from extauth.rules.model import Limit


class Ask(NamedTuple):
    """What one call asks of a counter: so many hits (≥ 1), if the limit that the counter is held to has room."""

    limit: Limit
    cost: int


class Take:
    """The counters of one request: their names in the store, each once, and what is asked of each.

    They are taken from together or, on a denial, not at all (but for limits that count denied hits). Compared by
    identity: calls that share a Take are counted together. Not to be changed once made.
    """

    __slots__ = ("asks", "names")

    def __init__(self, names: tuple[bytes, ...], asks: tuple[Ask, ...]) -> None:
        self.names = names
        self.asks = asks


class Group(NamedTuple):
    """`calls` equal calls of a batch: each one asks for `take`, in order of arrival."""

    take: Take
    calls: int


class Level(NamedTuple):
    """What a counter held before a group's first call, in the terms of the limit that it is held to.

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
