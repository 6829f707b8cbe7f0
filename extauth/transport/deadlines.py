"""What happens with a call's `grpc-timeout`, and the one timer that watches the deadlines of all calls.

1. Envoy sends its filter's `timeout` as the header grpc-timeout, which `h2/request_head.py` parses into `timeout_s`.
2. The call's `deadline` is an instant of our clock: `deadline_after_s(timeout_s)` after its head arrived.
3. `Deadlines` watches incomplete calls one by one (`Request`), whole ones with those that arrived together (`Calls`).
4. At its deadline a call has *expired*. A whole one is *shed*: the failure policy answers it (Shed.TIMEOUT), even while
   the store counts it. An incomplete one is answered OVER_LIMIT (Guard.SLOW_REQUEST). Other calls are not affected.
5. So Envoy gets an answer before its own timeout, and only the policy `error` leaves it to `failure_mode_deny`.
6. A call is *cancelled* when its stream is reset, as Envoy does at its own timeout, or its connection is gone.
   Cancelled and expired calls have *ended*: the batcher drops those that it has not handed to the store (`drop_ended`).
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

# Turns of the event loop from a timer until a reply that was in a socket by then has been handled: libuv runs timers
# before it polls, so one turn polls and reads the reply, and the next one hands it to whoever waits for it.
IO_TURNS: Final = 3
MIN_HEAP: Final = 1024  # the heap may grow by this many settled items before it is rebuilt
MIN_RESERVE_S: Final = 0.005


Clock = Callable[[], float]
"""Seconds from any start, which never go back: `time.perf_counter`, or a test's own."""


def deadline_after_s(timeout_s: float) -> float:
    """The time from a call's arrival to its deadline: its timeout less a reserve for the way there and back.

    The reserve is 5 ms or a quarter of the timeout, whichever is more, but at most 40 % of the timeout.
    """
    return 0.6 * timeout_s if timeout_s < MIN_RESERVE_S / 0.4 else timeout_s - max(MIN_RESERVE_S, timeout_s / 4)


class Expiring(Protocol):
    """An item that must be settled by `deadline`, in seconds of the clock."""

    deadline: float

    def expire(self, now: float) -> None:
        """Settle the part that is due by `now`, and set `deadline` to the time at which the rest is due."""
        ...


class Deadlines:
    """Calls `expire` of each item at its deadline, unless the item was discarded before.

    A deadline is judged only after the sockets were read: an answer may have come in time while the process stood.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[Expiring, int] = {}  # the number of its one valid entry in the heap
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
        """Forget the item: it is settled, and need not expire."""
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
