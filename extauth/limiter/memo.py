"""What was worked out once and is looked up from then on, within bytes."""

from collections import deque
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

PORTIONS = 64


class Memo(dict[K, V]):
    """A dict of at most `max_bytes`; what was learnt first is forgotten first. Written to by `remember` only.

    It forgets in portions: a dict that is emptied from its front one by one is slow to find its first entry. What is
    larger than a portion is not remembered, so that no caller can have everything forgotten at once.
    """

    __slots__ = ("_left", "_most", "_portions")

    def __init__(self, max_bytes: int) -> None:
        self._most = max_bytes // PORTIONS
        self._left = self._most  # bytes of the newest portion
        self._portions: deque[tuple[int, int]] = deque()  # (entries, bytes) of the others, from the oldest

    @property
    def bytes(self) -> int:
        """How many are remembered."""
        return sum(size for _, size in self._portions) + self._most - self._left

    def remember(self, key: K, value: V, size: int) -> None:
        """Keep it for later; `key` is not in the memo yet.

        `size` is an estimate, in bytes, of all that only the entry refers to, and of its place in a dict, about 100.
        """
        self._left -= size
        if self._left < 0 and not self._make_room(size):
            return
        self[key] = value

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._portions.clear()
        self._left = self._most

    def _make_room(self, size: int) -> bool:
        """Begin a new portion, for which the oldest makes room; returns whether the entry fits in."""
        self._left += size
        if size > self._most:
            return False
        known = sum(entries for entries, _ in self._portions)
        self._portions.append((len(self) - known, self._most - self._left))
        if len(self._portions) == PORTIONS:
            entries, _ = self._portions.popleft()
            for oldest in list(islice(self, entries)):
                del self[oldest]
        self._left = self._most - size
        return True
