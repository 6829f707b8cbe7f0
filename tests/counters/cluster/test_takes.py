"""Which calls of a cluster are answered together."""

from collections.abc import Callable

from extauth.counters.local import LocalCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.takes import ClusterTakes
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.counter_names import ShardOf, tags
from tests.support.cluster import RealCluster

SHARDS = 16


def on(shard: int, name: str = "c") -> bytes:
    """Of three masters, the first has the shards 0 to 5, the second 6 to 10, and the third the rest."""
    return f"x:{{{tags(SHARDS)[shard]}}}:{name}".encode()


async def test_calls_wait_for_no_other_master_and_for_no_more_steps_than_their_own(
    shared_cluster: Callable[[str], RealCluster],
) -> None:
    cluster = ClusterCounters(shared_cluster("valkey").url, 10)
    guard = ClusterGuard(cluster, LocalCounters(cluster.now_us), ShardOf(SHARDS))
    part_of = ClusterTakes(guard, SeveralShards(guard)).part_of
    await guard.look()
    assert part_of([on(0)]) == part_of([on(0, "a"), on(0, "b")]) == part_of([on(5)])
    assert part_of([on(0)]) != part_of([on(6)])
    assert part_of([on(0)]) != part_of([on(0), on(1)]), "these take two steps on one master"
    assert part_of([on(0), on(1)]) == part_of([on(2), on(3)])
    assert part_of([on(0), on(6)]) == part_of([on(7), on(1)])
    assert part_of([on(0), on(6)]) != part_of([on(0), on(11)])
    await guard.aclose()
    await cluster.aclose()
