"""What the limiter asks of the place where counts live."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from extauth.rules.model import Limit


class Mode(IntEnum):
    """What it means for a request that one of its limits has no room.

    ENFORCED: it is denied. QUOTA: it is denied if all of its quotas are so; QUOTA_TOO is another limit of the same
    quota as the ask before it. FREE: nothing, though it is told. SHADOW: nothing, and OK is told.
    """

    ENFORCED = 0
    QUOTA = 1
    QUOTA_TOO = 2
    FREE = 3
    SHADOW = 4


class Ask(NamedTuple):
    """What one call asks of a counter: so many hits, if the limit that the counter is held to has room.

    A cost of 0 only looks whether there is room for a hit; a negative one gives hits back, down to none at all.
    """

    limit: Limit
    cost: int
    mode: Mode = Mode.ENFORCED


class Take:
    """The counters of one request: their names in the store, and what is asked of each.

    A name that comes several times in a row is one counter that is held to several limits, alike but for their numbers.
    All of them are checked against what it held before. The hits, which are the same in each of these asks, are taken
    once, as the last of the limits has it, and the state is kept in that limit's terms. Other names come once.

    Compared by identity: calls that share a Take are counted together. Not to be changed once made.
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
    sliding_window: `whole` hits counted, `rest` microseconds until the last of them is out of the window, and `wait`
    until the group's first call that found no room would find it (its last one, where denied hits count).
    """

    whole: int
    rest: int
    wait: int = 0


class Taken(NamedTuple):
    """The outcome of a group: its first `admitted` calls are admitted, the others are not.

    `levels` has one Level an ask of the group's Take.
    """

    admitted: int
    levels: tuple[Level, ...]


class Counters(Protocol):
    """A store of counters. One contract suite holds every implementation to this."""

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        """Take for all groups, one after the other, at one instant; raises StoreError, and then may have counted.

        A call is admitted if all of its enforced limits have room and, where it has quotas, one of these. Then each of
        its counters takes the call's hits, those that are not enforced only if they have room. A call that is not
        admitted takes nothing. Limits that count denied hits take them in any case.
        """
        ...

    async def probe(self) -> None:
        """Return if the store counts, else raise StoreError, which names what is wrong. No caller's hits are taken."""
        ...
