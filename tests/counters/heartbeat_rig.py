"""Replicas that know of each other by their heartbeats in a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from extauth.counters.heartbeat import Heartbeat, Replica
from extauth.counters.redis.counters import RedisCounters
from tests.support.clock import SECOND, Clock, Seconds
from tests.support.stores import Store

KEY = "extauth:replicas"
A = Replica("10.0.0.1:8081", "1.2.3", "0123456789ab", "closed")
B = Replica("[fd00::2]:8081", "1.2.3", "0123456789ab", "closed")
C = Replica(None, "1.2.4", "ba9876543210", "closed")


class Rig:
    """Replicas that share an empty store; its clock and theirs go on by `wait`."""

    def __init__(self, counters: RedisCounters, store_clock: Clock, client: Redis) -> None:
        self.counters = counters
        self.client = client
        self._store_clock = store_clock
        self._clock = Seconds()

    def replica(self, described: Replica, report: bytes = b"", name: str | None = None) -> Heartbeat:
        async def make_report() -> bytes:
            return report

        return Heartbeat(self.counters, lambda: described, make_report, name=name, clock=self._clock)

    def wait(self, seconds: float) -> None:
        self._store_clock.sleep(round(seconds * SECOND))
        self._clock.now += seconds


@asynccontextmanager
async def replicas(store: Store) -> AsyncIterator[Rig]:
    """Of which none has left a heartbeat yet."""
    clock = Clock()
    counters = RedisCounters(store.url, 10, clock)
    async with Redis.from_url(store.url) as client:
        await client.delete(KEY, *await client.keys(f"{KEY}:*"))
        yield Rig(counters, clock, client)
    await counters.aclose()
