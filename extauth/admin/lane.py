"""A share of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

TURN_S: Final = 0.0005

_Result = TypeVar("_Result")


class Lane:
    """Runs work in the order it came, for TURN_S in a turn of the event loop; the rest waits for the next turn.

    However many connections have work, calls are decided between two turns of it. A piece of work is never interrupted,
    even if it takes longer than a turn.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._scheduled = False

    def run(self, work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        """Run `work` when its turn comes; the future has its result. If it is cancelled before, `work` never runs."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Result] = loop.create_future()
        self._queue.append((work, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._turn)
        return future

    def _turn(self) -> None:
        began = self._clock()
        while self._queue and self._clock() - began < TURN_S:
            work, future = self._queue.popleft()
            if future.cancelled():
                continue
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
                future.set_exception(error)
        self._scheduled = bool(self._queue)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._turn)
