"""A call that comes alone: it is decided in a batch with the others, and its caller waits for the answer."""

import asyncio
from typing import Final

from extauth.errors import RequestTooLargeError
from extauth.limiter.planner import Planner
from extauth.limiter.templates import Answer
from extauth.transport.batching import Batcher, Shed
from extauth.transport.waiting import Calls

ONLY: Final = 0
"""The name of a waiter's one call."""


class Waiter:
    """The Caller of a single call, whose answer `future` gets."""

    __slots__ = ("_batcher", "future")

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def drop_ended(self, calls: Calls) -> None:
        """As Caller.drop_ended: it may have been cancelled, or have expired."""
        if self.future.done():
            calls.plans.clear()
            calls.stream_ids.clear()

    def expire(self, calls: Calls, now: float) -> None:
        """As Caller.expire."""
        del now
        calls.deadline = float("inf")
        if not self.future.done():
            self.future.set_result(self._batcher.shed(calls.plans[0], Shed.TIMEOUT, calls, ONLY))

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        """As Caller.answer."""
        del calls
        if not self.future.done():
            self.future.set_result(messages[0])

    def flush(self) -> None:
        """As Caller.flush: there is nothing to send."""


async def decide_call(planner: Planner, batcher: Batcher, message: bytes) -> Answer:
    """The answer to a call without a deadline; raises InvalidRequestError."""
    try:
        plan = planner.plan(message)
    except RequestTooLargeError:
        return batcher.too_large
    waiter = Waiter(batcher)
    calls = Calls(waiter, batcher.clock())
    if batcher.room() <= 0:
        return batcher.shed(plan, Shed.WAITING_CALLS, calls, ONLY)
    calls.plans.append(plan)
    calls.stream_ids.append(ONLY)
    batcher.submit(calls)
    return await waiter.future
