"""What was worked out once and is looked up from then on, within bytes."""

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

ENTRY_BYTES = 100  # a dict's own share of an entry, when it is at its emptiest


class Memo(dict[K, V]):
    """A dict of at most `max_bytes`; what was learnt first is forgotten first. Written to by `remember` only.

    `size` gives an estimate, in bytes, of what an entry keeps in memory that nothing else keeps. What is larger than a
    64th of all there is room for is not remembered, so that no caller can have everything forgotten at once.
    """

    __slots__ = ("bytes", "max_bytes", "size")

    def __init__(self, max_bytes: int, size: Callable[[K, V], int]) -> None:
        self.max_bytes = max_bytes
        self.size = size
        self.bytes = 0

    def remember(self, key: K, value: V) -> None:
        """Keep it for later; `key` is not in the memo yet."""
        size = self.size(key, value) + ENTRY_BYTES
        if size > self.max_bytes >> 6:
            return
        if self.bytes + size > self.max_bytes:
            self._forget(self.max_bytes >> 6)
        self[key] = value
        self.bytes += size

    def _forget(self, least: int) -> None:
        """Make room, in one portion: a dict that is emptied from its front is slow to find its first entry."""
        while least > 0 and self:
            for oldest in list(islice(self, max(len(self) >> 6, 1))):
                size = self.size(oldest, self.pop(oldest)) + ENTRY_BYTES
                self.bytes -= size
                least -= size
