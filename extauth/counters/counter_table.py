"""The counters that this process holds: a table that is bounded in bytes and never forgets a count that matters."""

from heapq import heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

ENTRY_BYTES: Final = 512
"""What the table takes for a counter, beside its name and further entries of its log; measured, and rounded up."""
MAX_EXPIRED: Final = 1000  # looked at in a row, so that no batch waits long


class Counter(Protocol):
    """What a counter holds."""

    def ends_us(self) -> int:
        """When it can no longer matter."""
        ...

    def more_bytes(self) -> int:
        """What it takes beyond ENTRY_BYTES."""
        ...


_C = TypeVar("_C", bound=Counter)


class CounterTable(Generic[_C]):
    """Counters by name, in at most `max_bytes`.

    Expired counters make room for others, the longest expired first. A counter that can still matter stays: to forget
    it would admit calls that its limit denies. What has no room is refused, and what that means is for the caller.

    A name is in `_queue` once, with an instant no later than the one at which its counter ends, and goes back into it
    where the counter was used meanwhile: a hit costs nothing here, and every counter is looked at about once a period.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._counters: dict[bytes, _C] = {}
        self._queue: list[tuple[int, bytes]] = []
        self._queued: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._counters)

    def __contains__(self, name: bytes) -> bool:
        return name in self._counters

    def get(self, name: bytes) -> _C | None:
        """The counter, or None where there is none."""
        return self._counters.get(name)

    def make_room(self, size: int, now: int) -> bool:
        """Drop expired counters until `size` bytes are free, or say that they cannot be."""
        for _ in range(MAX_EXPIRED):
            if self._bytes + size <= self._max_bytes or not self._queue or self._queue[0][0] > now:
                break
            _, name = heappop(self._queue)
            counter = self._counters.get(name)
            if counter is not None and counter.ends_us() > now:
                heappush(self._queue, (counter.ends_us(), name))
            else:
                self._queued.discard(name)
                self.remove(name)
        return self._bytes + size <= self._max_bytes

    def keep_reserve(self, now: int) -> None:
        """Drop expired counters until an eighth is free, as far as there are any: what is held grows into it."""
        self.make_room(self._max_bytes // 8, now)

    def put(self, name: bytes, counter: _C) -> bool:
        """Add or replace a counter; returns False, and changes nothing, where it needs more room than there is."""
        before = self._counters.get(name)
        size = counter.more_bytes() + (ENTRY_BYTES + len(name) if before is None else -before.more_bytes())
        if size > 0 and self._bytes + size > self._max_bytes:
            return False
        self._counters[name] = counter
        self._bytes += size
        if name not in self._queued:
            self._queued.add(name)
            heappush(self._queue, (counter.ends_us(), name))
        return True

    def remove(self, name: bytes) -> None:
        """Remove a counter, if it is there."""
        counter = self._counters.pop(name, None)
        if counter is not None:
            self._bytes -= ENTRY_BYTES + len(name) + counter.more_bytes()
