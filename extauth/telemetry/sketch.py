"""The most frequent of many keys, in bounded memory.

The algorithm is "space-saving" (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in
Data Streams", 2005), for additions of any weight. A new key takes the place of the key with the smallest count, and
begins with that count, which is noted as its possible error.
"""

from collections.abc import Iterator
from heapq import heapify, heapreplace
from itertools import chain, count
from typing import Any


class Entry:
    """A key that is counted: its true weight is at most `count`, and at least `count - error`.

    `first_s` and `last_s` are the instants of its first and latest addition. `note` belongs to the sketch's user.
    """

    __slots__ = ("count", "error", "first_s", "key", "last_s", "note")

    def __init__(self, key: bytes, weight: int, error: int, now_s: float, note: Any) -> None:  # noqa: ANN401
        self.key = key
        self.count = weight + error
        self.error = error
        self.first_s = self.last_s = now_s
        self.note = note


class SpaceSaving:
    """Counts at most `capacity` keys.

    A key whose true weight is more than `floor` has an entry, and `floor` is at most a `capacity`-th of the weight of
    all additions. Whoever adds to a key that is in `entries` may add to its entry directly.
    """

    __slots__ = ("_aside", "_heap", "_numbers", "capacity", "entries")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: dict[bytes, Entry] = {}
        self._aside: dict[bytes, Entry] = {}
        # Once all places are taken: (a count that the entry had at some time, a number that is never equal, entry).
        # Counts only grow, so an entry whose count has changed belongs further back, and is put there when it is met.
        self._heap: list[tuple[int, int, Entry]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self.entries) + len(self._aside)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, those that are set aside among them."""
        return chain(self.entries.values(), self._aside.values())

    def add(self, key: bytes, weight: int, now_s: float, note: Any = None) -> Entry:  # noqa: ANN401
        """Count a key, whose entry is returned; a new entry gets the `note`."""
        entry = self.entries.get(key)
        if entry is None and self._aside and key in self._aside:
            entry = self.entries[key] = self._aside.pop(key)
        if entry is not None:
            entry.count += weight
            entry.last_s = now_s
            return entry
        heap = self._heap
        if not heap:
            return self._begin(key, weight, now_s, note)
        counted, _, least = heap[0]
        if least.count != counted:
            least = self._least()
        if self.entries.pop(least.key, None) is None:
            del self._aside[least.key]
        entry = self.entries[key] = Entry(key, weight, least.count, now_s, note)
        heapreplace(heap, (entry.count, next(self._numbers), entry))
        return entry

    def _begin(self, key: bytes, weight: int, now_s: float, note: Any) -> Entry:  # noqa: ANN401
        """Count a key that has no entry while there is room for one."""
        entry = self.entries[key] = Entry(key, weight, 0, now_s, note)
        if len(self) == self.capacity:
            self._heap = [(each.count, next(self._numbers), each) for each in self]
            heapify(self._heap)
        return entry

    def find(self, key: bytes) -> Entry | None:
        """The entry of a key, if it has one."""
        return self.entries.get(key) or self._aside.get(key)

    def set_aside(self, entry: Entry) -> None:
        """Keep the entry out of `entries` until its key is added again, which is then done by `add`."""
        if self.entries.pop(entry.key, None) is not None:
            self._aside[entry.key] = entry

    @property
    def floor(self) -> int:
        """What a key without an entry may weigh at most."""
        return self._least().count if self._heap else 0

    def _least(self) -> Entry:
        """The entry with the smallest count, which is then the first of the heap."""
        heap = self._heap
        while True:
            counted, _, entry = heap[0]
            if entry.count == counted:
                return entry
            heapreplace(heap, (entry.count, next(self._numbers), entry))
