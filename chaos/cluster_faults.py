"""Faults of a Redis Cluster. Where a replica takes over, a fault ends when most masters know it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chaos.faults import FEW, Fault, Faults
from chaos.stage import Stage, Way
from extauth.counters.redis.cluster.slots import slot_of
from extauth.limiter.counter_names import SHARDS, tags
from tests.support.cluster import RealCluster


@asynccontextmanager
async def master_killed(stage: Stage) -> AsyncIterator[None]:
    """SIGKILL of a master, which comes back as a replica when the next fault begins."""
    cluster = await _ready(stage)
    await asyncio.to_thread(cluster.masters[0].stop, signal.SIGKILL)
    await _taken_over(cluster)
    yield


@asynccontextmanager
async def master_cut_off(stage: Stage) -> AsyncIterator[None]:
    """SIGSTOP of a master until its replica has taken over, and for a second more."""
    cluster = await _ready(stage)
    silent = cluster.masters[0]
    silent.signal(signal.SIGSTOP)
    try:
        await _taken_over(cluster)
        yield
    finally:
        silent.signal(signal.SIGCONT)


@asynccontextmanager
async def handed_over(stage: Stage) -> AsyncIterator[None]:
    """An operator has a replica take over from its master, which is well."""
    cluster = await _ready(stage)
    await asyncio.to_thread(cluster.replicas[0].command, "CLUSTER", "FAILOVER")
    await _taken_over(cluster)
    yield


@asynccontextmanager
async def half_gone(stage: Stage) -> AsyncIterator[None]:
    """SIGKILL of two of three masters and their replicas, and a start without data."""
    cluster = await _ready(stage)
    gone = [*cluster.masters[1:], *cluster.replicas[1:]]
    for node in gone:
        await asyncio.to_thread(node.stop, signal.SIGKILL)
    yield
    for node in gone:
        await asyncio.to_thread(node.start)
    await asyncio.to_thread(cluster.until_well)


@asynccontextmanager
async def slots_moved(stage: Stage) -> AsyncIterator[None]:
    """All shards of a master move to another one, a key at a time, and back."""
    cluster = await _ready(stage)
    source, target, _ = cluster.masters
    own = [slot for slot in (slot_of(tag.encode()) for tag in tags(SHARDS)) if cluster.owns(source, slot)]
    for here, there in ((source, target), (target, source)):
        for slot in own:
            await asyncio.to_thread(cluster.begin_to_move, slot, here, there)
            while await asyncio.to_thread(cluster.move_keys, slot, here, there, 1):
                pass
            await asyncio.to_thread(cluster.finish_move, slot, here, there)
    yield


async def _ready(stage: Stage) -> RealCluster:
    """The cluster, once each master has a replica that may take over; those that were killed are started."""
    cluster = stage.cluster
    if cluster is None:
        raise RuntimeError("this stage has no cluster")
    for node in cluster.nodes:
        if not node.running:
            await asyncio.to_thread(node.start)
    await asyncio.to_thread(cluster.until_well)
    return cluster


async def _taken_over(cluster: RealCluster) -> None:
    replica, alive = cluster.replicas[0], cluster.masters[1:]
    await asyncio.to_thread(cluster.until_failed_over, replica, alive)
    cluster.masters[0], cluster.replicas[0] = cluster.replicas[0], cluster.masters[0]


# What the old master had not replicated yet is lost.
CLUSTER: Faults = {
    "cluster_killed": Fault(cause=master_killed, way=Way.CLUSTERED, seconds=0, forgets=1),
    "cluster_spread_killed": Fault(cause=master_killed, way=Way.SPREAD, seconds=0, forgets=1, policies=FEW),
    "cluster_cut_off": Fault(cause=master_cut_off, way=Way.CLUSTERED, seconds=1, forgets=1, policies=FEW),
    "cluster_handed_over": Fault(cause=handed_over, way=Way.CLUSTERED, seconds=0, policies=FEW),
    "cluster_half_gone": Fault(cause=half_gone, way=Way.CLUSTERED, forgets=1),
    "cluster_slots_moved": Fault(cause=slots_moved, way=Way.CLUSTERED, seconds=0, cut_off=frozenset(), policies=FEW),
}
