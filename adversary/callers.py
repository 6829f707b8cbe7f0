"""Honest callers, which ask through Envoy beside a hostile client."""

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp

PAUSE_S = 0.005  # between two requests of an honest caller
AT_ONCE = 4  # requests of an honest caller
PASS, OVER = 200, 429
NO_ANSWER = 0  # in place of a status: the connection broke


@dataclass
class Caller:
    """An honest caller that asks AT_ONCE requests at a time, and again when they are answered."""

    key: str
    statuses: dict[int, int] = field(default_factory=dict)
    times_ms: list[float] = field(default_factory=list)

    async def ask_until(self, session: aiohttp.ClientSession, done: asyncio.Event) -> None:
        """Ask until the event is set."""

        async def one_by_one() -> None:
            while not done.is_set():
                began = time.perf_counter()
                await self.ask(session)
                self.times_ms.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(PAUSE_S)

        await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))

    async def ask(self, session: aiohttp.ClientSession) -> int:
        """One request; returns its status, or NO_ANSWER."""
        try:
            async with session.get("/", headers={"x-api-key": self.key}) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = NO_ANSWER
        self.statuses[status] = self.statuses.get(status, 0) + 1
        return status

    @property
    def passed(self) -> int:
        """Requests that were let through."""
        return self.statuses.get(PASS, 0)

    @property
    def denied(self) -> int:
        """Requests that were over the limit."""
        return self.statuses.get(OVER, 0)

    @property
    def asked(self) -> int:
        """All requests."""
        return sum(self.statuses.values())

    @property
    def p99_ms(self) -> float:
        """Of all answers but one in a hundred, the longest wait."""
        ordered = sorted(self.times_ms)
        return ordered[len(ordered) * 99 // 100] if ordered else 0.0
