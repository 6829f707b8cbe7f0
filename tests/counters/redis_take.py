"""Limits of each algorithm, a take from a Redis, and that Redis's clock."""

from collections.abc import Callable

from redis.asyncio import Redis

from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support import takes

LIMITS = [Limit(10, Unit.HOUR, algorithm) for algorithm in Algorithm]
Connect = Callable[..., RedisCounters]


async def take(counters: RedisCounters, limit: Limit, name: str = "c", calls: int = 1) -> int:
    (taken,) = await counters.take([Group(takes.take((name.encode(), limit, 1)), calls)])
    return taken.admitted


async def now_us(client: Redis) -> int:
    seconds, us = await client.time()
    return int(seconds) * 1_000_000 + int(us)
