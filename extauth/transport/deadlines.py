"""The timeouts of calls: one timer for all calls that wait, whatever their timeouts are."""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

# From a timer to a verdict that lies in a socket already: libuv runs timers before it polls, so one turn of the loop
# polls and reads the reply, and the next one hands it to whoever waits.
IO_TURNS: Final = 3
MIN_HEAP: Final = 1024  # the heap may grow by this many settled items before it is rebuilt


Clock = Callable[[], float]
"""Seconds from any start, which never go back: `time.perf_counter`, or a test's own."""


class Expiring(Protocol):
    """An item that must be settled by `deadline`, in seconds of the clock."""

    deadline: float

    def expire(self, now: float) -> None:
        """Settle what is due, and set `deadline` to when the rest is due."""
        ...


class Deadlines:
    """Calls `expire` of each item at its deadline, unless the item was discarded before.

    A deadline is judged only after a pass of I/O: when this process was stopped, the answer may have come in time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[Expiring, int] = {}  # with the number of its entry, of which older ones are void
        self._heap: list[tuple[float, int, Expiring]] = []
        self._numbers = count()
        self._next = float("inf")  # when the timer fires
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._live)

    def add(self, item: Expiring) -> None:
        """Expire the item at its deadline."""
        number = self._live[item] = next(self._numbers)
        heapq.heappush(self._heap, (item.deadline, number, item))
        if item.deadline < self._next:
            self._arm(item.deadline)

    def discard(self, item: Expiring) -> None:
        """The item is settled: it need not expire."""
        if self._live.pop(item, None) is not None and len(self._heap) > MIN_HEAP + 2 * len(self._live):
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = asyncio.get_running_loop().call_later(max(at - self._clock(), 0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        after_io(self._judge)

    def _judge(self) -> None:
        self._next = float("inf")
        now = self._clock()
        try:
            while self._heap and self._heap[0][0] <= now:
                _, number, item = heapq.heappop(self._heap)
                if self._live.get(item) != number:
                    continue
                del self._live[item]
                item.expire(now)
                if now < item.deadline < float("inf"):
                    self.add(item)
        finally:  # an error in one is no reason to let the others wait
            if self._heap and self._heap[0][0] < self._next:
                self._arm(self._heap[0][0])


def after_io(call: Callable[[], None], turns: int = IO_TURNS) -> None:
    """Call once the loop has read its sockets, and the tasks that waited for their data have run."""
    if turns:
        asyncio.get_running_loop().call_soon(after_io, call, turns - 1)
    else:
        call()
