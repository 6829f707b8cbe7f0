"""What is run on keys of one slot: a script, or a command, that can be split into parts where the slot is moving."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from extauth.counters.redis.scripts import Script, command
from extauth.counters.redis.takes import note_receipts, pack_most, pack_take, read_take
from extauth.limiter.counters import Group, Owed, Return, TakeResult

MOST_NUMBER: Final = 2**31


class Run(Protocol):
    """A run of `script`, or a command where that is None, with one result for each of its items."""

    @property
    def script(self) -> Script | None:
        """The script."""

    @property
    def again(self) -> bool:
        """Whether it may be sent again where its reply is lost."""

    @property
    def timed(self) -> bool:
        """Whether the second number of the reply is the server's time."""

    def __len__(self) -> int:
        """The number of items."""

    def names(self) -> Sequence[bytes]:
        """The names of its keys, each once."""

    def parts(self) -> "Sequence[Run]":
        """A run for each item, each of which may go to another server."""

    def pack(self, now: bytes) -> tuple[bytes, bytes]:
        """The array header, and what follows the script; the whole command first where there is no script."""

    def read(self, reply: Any) -> Sequence[Any]:  # noqa: ANN401 - whatever Redis replies
        """The results; raises ValueError, TypeError or IndexError where the reply is none of the script's."""


class TakeRun:
    """A take, whose items are its groups; those may be Parts of requests only with `receipts`."""

    again = True
    timed = True

    def __init__(self, script: Script, groups: Sequence[Group], number: int, *, receipts: bool = False) -> None:
        self.script = script
        self.groups = groups
        self._receipts = receipts
        self._number = number % MOST_NUMBER
        self._size = 0

    def __len__(self) -> int:
        return len(self.groups)

    def names(self) -> list[bytes]:
        """See Run."""
        return list(dict.fromkeys(name for group in self.groups for name in group.take.names))

    def parts(self) -> "list[TakeRun]":
        """See Run."""
        return [TakeRun(self.script, [group], self._number, receipts=self._receipts) for group in self.groups]

    def pack(self, now: bytes) -> tuple[bytes, bytes]:
        """See Run."""
        most = pack_most(self.groups) if self._receipts else b""
        head, body, self._size = pack_take(self.groups, self._number, now, most)
        return head, body

    def read(self, reply: Any) -> list[TakeResult]:  # noqa: ANN401
        """See Run."""
        takens = read_take(reply, self.groups, self._number, self._size)
        if self._receipts:
            note_receipts(self.groups, reply[1])
        return takens


_Item = TypeVar("_Item", Owed, Return)


class WriteRun(Generic[_Item]):
    """A script that changes counters by itself, whose items are one each; it is never sent twice."""

    again = False
    timed = False

    def __init__(
        self, script: Script, items: Sequence[_Item], pack: Callable[[Sequence[_Item], bytes], tuple[bytes, bytes]]
    ) -> None:
        self.script = script
        self.items: Sequence[_Item] = items
        self._pack: Callable[[Sequence[_Item], bytes], tuple[bytes, bytes]] = pack

    def __len__(self) -> int:
        return len(self.items)

    def names(self) -> list[bytes]:
        """See Run."""
        return list(dict.fromkeys(item.name for item in self.items))

    def parts(self) -> "list[WriteRun[_Item]]":
        """See Run."""
        return [WriteRun(self.script, [item], self._pack) for item in self.items]

    def pack(self, now: bytes) -> tuple[bytes, bytes]:
        """See Run."""
        return self._pack(self.items, now)

    def read(self, _reply: object) -> list[None]:
        """See Run; the reply says nothing."""
        return [None] * len(self.items)


class CommandRun:
    """A command, or a run of a script of its own, as one item."""

    timed = False

    def __init__(
        self, key: bytes, packed: tuple[bytes, bytes], script: Script | None = None, *, again: bool = True
    ) -> None:
        self.script = script
        self.again = again
        self._key = key
        self._packed = packed

    @classmethod
    def of(cls, *words: bytes) -> "CommandRun":
        """A command whose second word is its only key."""
        return cls(words[1], (command(*words), b""))

    def __len__(self) -> int:
        return 1

    def names(self) -> list[bytes]:
        """See Run."""
        return [self._key]

    def parts(self) -> "list[CommandRun]":
        """See Run."""
        return [self]

    def pack(self, _now: bytes) -> tuple[bytes, bytes]:
        """See Run."""
        return self._packed

    def read(self, reply: object) -> list[object]:
        """See Run."""
        return [reply]
