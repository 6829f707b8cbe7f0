"""Natural batching: what arrives while a batch is being decided is the next batch.

An idle server adds no wait: what one pass of the event loop read leaves in the next, and each connection gets its
answers in one write a batch.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from extauth.limiter.limiter import Decided, Limiter
from extauth.limiter.plan import Plan
from extauth.transport.answers import Answers
from extauth.transport.rls import ResponseHeaders

Observe = Callable[[Decided, Sequence[tuple[float, int]]], None]
"""(what was decided, (seconds from arrival to answer, calls that took so long)…): the one fact a batch."""


class Calls:
    """Calls of one caller that arrived together, at `arrived`; `tags` are the caller's own names for them.

    Times are seconds on `time.perf_counter`; `deadline` is the earliest of the calls'.
    """

    __slots__ = ("arrived", "caller", "deadline", "plans", "tags")

    def __init__(self, caller: "Caller", arrived: float) -> None:
        self.caller = caller
        self.arrived = arrived
        self.deadline = float("inf")
        self.plans: list[Plan] = []
        self.tags: list[int] = []


class Caller(Protocol):
    """Who is owed answers."""

    def prune(self, calls: Calls, now: float) -> None:
        """Drop from `calls`, before they are counted, those that nobody waits for any more."""
        ...

    def answer(self, calls: Calls, messages: list[bytes | None]) -> None:
        """Take a message a call; None: the store failed, and so must the call."""
        ...

    def fail(self, calls: Calls) -> None:
        """There are no answers, by a fault of ours."""
        ...

    def flush(self) -> None:
        """Send what was answered: the batch has no more for this caller."""
        ...


class Batcher:
    """Gathers calls into batches and has them decided, a few batches at a time.

    A batch closes at the calls with which it reaches `max_batch`; `max_waiting` bounds the calls that wait for a batch.
    """

    def __init__(
        self,
        limiter: Limiter,
        observe: Observe,
        *,
        max_batch: int = 1000,
        max_in_flight: int = 2,
        max_waiting: int = 20_000,
        headers: ResponseHeaders | None = None,
    ) -> None:
        self._limiter = limiter
        self._answers = Answers(limiter, headers)
        self._observe = observe
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._queue: deque[Calls] = deque()
        self._waiting = 0
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def room(self) -> int:
        """How many more calls may wait."""
        return self._max_waiting - self._waiting

    def submit(self, calls: Calls) -> None:
        """Have the calls decided, and their caller answered; not more than there is `room` for."""
        self._queue.append(calls)
        self._waiting += len(calls.plans)
        if not self._scheduled and len(self._tasks) < self._max_in_flight:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        now = time.perf_counter()
        while self._queue and len(self._tasks) < self._max_in_flight:
            batch: list[Calls] = []
            size = 0
            while self._queue and size < self._max_batch:
                calls = self._queue.popleft()
                self._waiting -= len(calls.plans)
                calls.caller.prune(calls, now)
                if calls.plans:
                    size += len(calls.plans)
                    batch.append(calls)
            if batch:
                task = asyncio.create_task(self._decide(batch))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._queue and not self._scheduled:
            self._start()

    async def _decide(self, batch: list[Calls]) -> None:
        counts: Counter[Plan] = Counter()
        for calls in batch:
            counts.update(calls.plans)
        try:
            decided = await self._limiter.decide(counts)
            answers = {settled.plan: iter(self._answers.encode(settled)).__next__ for settled in decided.settled}
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails these calls and no later ones
            asyncio.get_running_loop().call_exception_handler({"message": "a batch failed", "exception": error})
            for calls in batch:
                calls.caller.fail(calls)
                calls.caller.flush()
            return
        for calls in batch:
            calls.caller.answer(calls, [answers[plan]() for plan in calls.plans])
        for caller in {calls.caller for calls in batch}:
            caller.flush()
        now = time.perf_counter()
        self._observe(decided, [(now - calls.arrived, len(calls.plans)) for calls in batch])
