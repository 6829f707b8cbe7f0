import secrets
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.counters import RedisCounters
from tests.counters.bench import Bench
from tests.counters.redis_take import Connect
from tests.support.clock import Clock
from tests.support.cluster import RealCluster
from tests.support.shards import Settled, ShardedBench, in_memory, on_cluster
from tests.support.stores import SERVERS, Store


@pytest.fixture(params=["memory", "denials", "shards", "cluster", "cluster_shards", *SERVERS])
async def bench(
    request: pytest.FixtureRequest, shared_store: Callable[[str], Store], shared_cluster: Callable[[str], RealCluster]
) -> AsyncIterator[Bench]:
    clock = Clock()
    if request.param == "memory":
        yield Bench(MemoryCounters(clock), clock, "")
    elif request.param == "denials":
        yield Bench(DenialCache(MemoryCounters(clock), 1, clock_us=clock), clock, "")
    elif request.param == "shards":
        yield ShardedBench(Settled(in_memory(clock)), clock, "")
    elif request.param == "cluster_shards":
        async with on_cluster(shared_cluster("valkey").url, clock) as shards:
            yield ShardedBench(Settled(shards), clock, secrets.token_hex(8))
    elif request.param == "cluster":
        cluster = ClusterCounters(shared_cluster("valkey").url, 10, clock)
        yield Bench(cluster, clock, f"{{{secrets.token_hex(8)}}}")
        await cluster.aclose()
    else:
        counters = RedisCounters(shared_store(request.param).url, 10, clock)
        yield Bench(counters, clock, secrets.token_hex(8))
        await counters.aclose()


@pytest.fixture
async def client(own_store: Store) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_store.url) as client:
        yield client


@pytest.fixture
async def connect(own_store: Store) -> AsyncIterator[Connect]:
    """Counters in that server, by their timeout in seconds."""
    opened: list[RedisCounters] = []

    def open_(timeout_s: float = 10) -> RedisCounters:
        opened.append(RedisCounters(own_store.url, timeout_s))
        return opened[-1]

    yield open_
    for counters in opened:
        await counters.aclose()
