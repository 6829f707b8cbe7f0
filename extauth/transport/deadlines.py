"""Calls' own clocks: one timer for all that wait, whatever their timeouts are."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

# From a timer to a verdict that lies in a socket already: libuv runs timers before it polls, so one turn of the loop
# polls and reads the reply, and the next one hands it to whoever waits.
IO_TURNS: Final = 3


class Expiring(Protocol):
    """Something that must be settled by `deadline`, in seconds of `perf_counter`."""

    deadline: float

    def expire(self, now: float) -> None:
        """Settle what is due; leave in `deadline` when the rest is."""
        ...


class Deadlines:
    """Has what is added to it expire in time, unless it was discarded before.

    A deadline is judged only after a pass of I/O: when this process was stopped, the answer may have come in time.
    """

    def __init__(self) -> None:
        self._waiting: set[Expiring] = set()
        self._next = float("inf")  # when the timer fires
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Expiring) -> None:
        """Watch over it, from now on."""
        self._waiting.add(item)
        if item.deadline < self._next:
            self._arm(item.deadline)

    def discard(self, item: Expiring) -> None:
        """It is settled."""
        self._waiting.discard(item)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = at
        self._timer = asyncio.get_running_loop().call_later(max(at - perf_counter(), 0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        after_io(self._judge)

    def _judge(self) -> None:
        self._next = float("inf")
        now = perf_counter()
        for item in [item for item in self._waiting if item.deadline <= now]:
            item.expire(now)
        soonest = min((item.deadline for item in self._waiting), default=float("inf"))
        if soonest < self._next:
            self._arm(soonest)


def after_io(call: Callable[[], None], turns: int = IO_TURNS) -> None:
    """Call once the loop has read what lay in its sockets, and those who waited for it have run."""
    if turns:
        asyncio.get_running_loop().call_soon(after_io, call, turns - 1)
    else:
        call()
