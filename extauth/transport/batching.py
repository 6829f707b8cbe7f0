"""Natural batching: what arrives while a batch is being decided is the next batch.

An idle server adds no wait: the calls of one pass of the event loop leave together in the next.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from extauth.limiter.limiter import Decided, Limiter
from extauth.limiter.plan import Plan
from extauth.limiter.verdict import Verdict

Observe = Callable[[Decided, Sequence[float]], None]
"""(what was decided, each call's seconds from arrival to verdict): the one fact a batch, for telemetry."""


class Batcher:
    """Gathers calls into batches of at most `max_calls` and has them decided, one batch at a time."""

    def __init__(self, limiter: Limiter, observe: Observe, max_calls: int = 1000) -> None:
        self._limiter = limiter
        self._observe = observe
        self._max_calls = max_calls
        self._waiting: list[tuple[Plan, float, asyncio.Future[Verdict | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def decide(self, plan: Plan) -> Verdict | None:
        """Decide one call, together with those that wait beside it; None: the store failed, and so must the call."""
        future: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((plan, time.perf_counter(), future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_calls], self._waiting[self._max_calls :]
                try:
                    decided = await self._limiter.decide([plan for plan, _, _ in batch])
                except Exception as error:  # noqa: BLE001 - whatever it is, it fails these calls and no later ones
                    for _, _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                now = time.perf_counter()
                for (_, _, future), verdict in zip(batch, decided.verdicts, strict=True):
                    if not future.done():  # its caller may have given up
                        future.set_result(verdict)
                self._observe(decided, [now - arrived for _, arrived, _ in batch])
        finally:
            self._task = None
