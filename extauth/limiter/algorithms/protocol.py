"""What an algorithm can do: one object for each limit, for the levels that a store reports and for states in memory."""

import struct
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

from extauth.limiter.algorithms.outcome import Outcome
from extauth.rules.model import Limit

_PACKED = struct.Struct("<Bddd")
_COUNT_DENIED, _STOPS = 4, 8


class State(Protocol):
    """What a counter in memory holds, in the terms of the limit that took its latest hits; `now` is in microseconds."""

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing that a new counter would not."""
        ...

    def used_hits(self, now: int) -> int:
        """The hits that it holds, from which another algorithm makes a state of its own."""
        ...

    def ends_us(self) -> int:
        """When it can no longer matter."""
        ...

    def more_bytes(self) -> int:
        """What it takes beyond counter_table.ENTRY_BYTES."""
        ...

    def merge_newest(self) -> bool:
        """Take no more memory than before the latest hits, which may then count for longer; whether it can."""
        ...


class FixedSize:
    """The part of a State that never grows, and is worth keeping until it ends."""

    __slots__ = ()

    @property
    def is_empty(self) -> bool:
        """Never."""
        return False

    def more_bytes(self) -> int:
        """None."""
        return 0

    def merge_newest(self) -> bool:
        """There is nothing to merge."""
        return False


L = TypeVar("L", bound=tuple[int, ...])
S = TypeVar("S", bound=State)


class LimitAlgorithm(Protocol[L, S]):
    """How one limit counts: in levels `L`, the state of a counter before a group's first call, and states `S`.

    `cost_us` is about what a counter takes of a run of take.lua. `falls_evenly` says that `later` is exact, and
    `holds_until_end` that what is used stays used until all of it ends at once.
    """

    cost_us: ClassVar[int]
    falls_evenly: ClassVar[bool]
    holds_until_end: ClassVar[bool]
    numbers: ClassVar[int]
    """Length of a level in the script's reply."""
    read: ClassVar[type[Any]]
    """`L`, which is made of these numbers."""

    @property
    def slight_level(self) -> int:
        """The first number of a level at which a sixteenth of the limit is used."""
        ...

    @property
    def slight_hits(self) -> int:
        """A sixteenth of the limit, rounded down."""
        ...

    @property
    def packed(self) -> bytes:
        """The limit as take.lua reads it."""
        ...

    def calls_that_fit(self, cost: int, level: L) -> int:
        """Number of equal calls that fit the limit, from this level on."""
        ...

    def calls_up_to(self, hits: int, cost: int, level: L) -> int:
        """Number of equal calls, of a cost above 0, after which the counter holds at most `hits`."""
        ...

    def first_number(self, hits: int) -> int:
        """The first number of a level at which `hits` are used, rounded down."""
        ...

    def outcome(self, cost: int, level: L, calls: int, *, over: bool) -> Outcome:
        """The outcome of a call once the hits of `calls` calls are counted, its own among them if they are."""
        ...

    def countdown(self, level: L) -> tuple[int, int, int, int]:
        """What admitted calls are told: (remaining, reset in ticks, ticks per hit, ticks per second) before the first.

        Each hit takes 1 from `remaining` and adds `ticks per hit` to the reset. As `outcome` says of calls that cost
        more than 0 and fit, in a form that is quick to step through.
        """
        ...

    def used_hits(self, level: L) -> int:
        """The hits that the counter holds, rounded up."""
        ...

    def after(self, level: L, hits: int) -> L:
        """The level once the hits are taken."""
        ...

    def later(self, level: L, elapsed_us: int) -> L:
        """The level `elapsed_us` later."""
        ...

    def in_terms(self, state: State, now: int) -> bool:
        """Whether the state is in this limit's terms, and not from a clock that was ahead of this one."""
        ...

    def convert(self, state: State, now: int) -> S | None:
        """A state that is not `in_terms`, put into this limit's terms; None if nothing is used."""
        ...

    def level(self, state: S | None, now: int) -> L:
        """The level of a counter, which is empty if its state is None."""
        ...

    def level_with_wait(self, state: S | None, level: L, excess: int, now: int) -> L:
        """The level of a group that was partly denied, with the time until the first call that did not fit would fit.

        For that, `excess` more hits must be out of the window than are now; those that are taken now leave it last.
        """
        ...

    def take(self, state: S | None, hits: int, now: int) -> S:
        """The state once the hits, which may be negative, are taken."""
        ...

    def seed(self, level: L, whole: Self, now: int) -> S | None:
        """The state of a counter that begins where one of the limit `whole` is at this level.

        `whole` may be this limit itself. If this one is a share of it, so is the state: what is used up stays used up.
        """
        ...

    def owed(self, before: S | None, state: S, now: int) -> tuple[int, ...]:
        """The difference that hits make between two states, as numbers that `settle` and settle.lua add to a third."""
        ...

    def settle(self, state: S | None, owed: tuple[int, ...], now: int) -> S | None:
        """The state once what is `owed` is added to it; None if it would be that of an unused counter."""
        ...

    def give_back(self, state: State, hits: int, at_us: int, now: int) -> State:
        """The state without hits that were taken at the instant `at_us`; `state` itself where none can be returned.

        In any state it takes away at most what that would hold less, had these hits never been taken.
        """
        ...


AnyAlgorithm: TypeAlias = LimitAlgorithm[Any, Any]


def pack_limit(kind: int, limit: Limit, *numbers: int, stops: bool = False) -> bytes:
    """A limit of that kind, with its three numbers, for take.lua; `stops` is as LimitCheck describes it."""
    flags = (_COUNT_DENIED if limit.count_denied else 0) + (_STOPS if stops else 0)
    return _PACKED.pack(kind + flags, *numbers)
