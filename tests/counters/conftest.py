import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from tests.counters.bench import Bench
from tests.support.clock import Clock
from tests.support.stores import SERVERS, Store


@pytest.fixture(params=["memory", "denials", *SERVERS])
async def bench(request: pytest.FixtureRequest, shared_store: Callable[[str], Store]) -> AsyncIterator[Bench]:
    clock = Clock()
    if request.param == "memory":
        yield Bench(MemoryCounters(clock), clock, "")
    elif request.param == "denials":
        yield Bench(DenialCache(MemoryCounters(clock), 1, clock_us=clock), clock, "")
    else:
        counters = RedisCounters(shared_store(request.param).url, 10, clock)
        yield Bench(counters, clock, secrets.token_hex(8))
        await counters.aclose()
