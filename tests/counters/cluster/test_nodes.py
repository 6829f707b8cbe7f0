"""What nodes must be, and which of them are asked."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.errors import StoreError
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.cluster import RealCluster
from tests.support.ports import free_port
from tests.support.sentinels import RealSentinel, Server
from tests.support.takes import take

LIMIT = Limit(10, Unit.HOUR, Algorithm.GCRA)


@pytest.fixture
def alone(short_path: Path) -> Iterator[Server]:
    """A server that belongs to no cluster."""
    server = Server("valkey", short_path / "alone")
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def opened(url: str, evicts: Callable[[str], None] = lambda _reason: None) -> AsyncIterator[ClusterCounters]:
    counters = ClusterCounters(url, 10, evicts=evicts)
    try:
        yield counters
    finally:
        await counters.aclose()


async def refused(url: str) -> str:
    async with opened(url) as counters:
        with pytest.raises(StoreError) as raised:
            await counters.probe()
        return str(raised.value)


async def test_a_server_of_no_cluster_is_named(alone: Server) -> None:
    at = f"127.0.0.1:{alone.port}"
    nobody = f"no node of the Redis Cluster says where its masters are: Redis at {at} belongs to no Redis Cluster: "
    said = "EXTAUTH_REDIS_URL must be redis:// or rediss:// with its address"
    assert await refused(f"redis+cluster://{at}") == nobody + said


async def test_a_sentinel_is_named(short_path: Path, alone: Server) -> None:
    sentinel = RealSentinel("valkey", short_path / "s", alone.port, (), "")
    sentinel.start()
    try:
        assert "is a Sentinel, which counts nothing: " in await refused(f"redis+cluster://127.0.0.1:{sentinel.port}")
    finally:
        sentinel.stop()


async def test_each_node_that_does_not_answer_is_named() -> None:
    ports = [free_port(), free_port()]
    said = await refused("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports))
    assert all(f"connecting to 127.0.0.1:{port}" in said for port in ports), said


async def test_nodes_that_serve_no_slot_are_no_cluster_to_count_in(short_path: Path) -> None:
    cluster = RealCluster("valkey", short_path / "c", masters=1, replicas=False)
    (node,) = cluster.masters
    node.start()
    try:
        assert await refused(cluster.url) == (
            f"no node of the Redis Cluster says which masters serve its slots ({node.address})"
        )
    finally:
        node.stop()


async def test_one_node_of_the_url_is_enough(shared_cluster: Callable[[str], RealCluster]) -> None:
    cluster = shared_cluster("valkey")
    async with opened(f"redis+cluster://127.0.0.1:{free_port()},{cluster.masters[1].address}") as counters:
        await counters.probe()
        assert {address.port for address in counters.topology.masters} == {node.port for node in cluster.masters}


async def test_a_master_that_evicts_is_named_once(shared_cluster: Callable[[str], RealCluster]) -> None:
    cluster = shared_cluster("valkey")
    node = cluster.masters[0]
    node.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    reasons: list[str] = []
    try:
        async with opened(cluster.url, evicts=reasons.append) as counters:
            for _ in range(3):
                await counters.probe()
        assert len(reasons) == 1
        assert reasons[0].startswith(f"Redis at {node.address} has the maxmemory-policy allkeys-lru: ")
    finally:
        node.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


@pytest.mark.timeout(60)
async def test_a_cluster_of_one_master_is_found_by_its_replica_and_followed_to_it(short_path: Path) -> None:
    cluster = RealCluster("valkey", short_path / "c", masters=1)
    cluster.start()
    (master,), (replica,) = cluster.masters, cluster.replicas
    group = Group(take((b"{a}", LIMIT, 1)), 1)
    try:
        async with opened(f"redis+cluster://{replica.address}") as counters:
            assert [taken.admitted for taken in await counters.take([group])] == [1]
            replica.command("CLUSTER", "FAILOVER")  # the master is well, and hands over
            cluster.until_failed_over(replica, [replica])
            assert [taken.admitted for taken in await counters.take([group])] == [1]
            await counters.topology.refresh()
            assert [address.port for address in counters.topology.masters] == [replica.port]
        assert not master.is_master
    finally:
        cluster.stop()
