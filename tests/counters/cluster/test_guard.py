"""Masters behind their breakers: what goes out together, and what becomes of the calls of one that is away."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from extauth.counters.breaker import BreakerState
from extauth.counters.local import LocalCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.slots import slot_of
from extauth.counters.redis.cluster.takes import ClusterTakes
from extauth.counters.several_shards import SeveralShards
from extauth.errors import StoreError
from extauth.limiter.counter_names import SHARDS, KeyNamer, ShardOf, tags
from extauth.limiter.counters import Group, TakeResult, Uncounted
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.cluster import Node, RealCluster
from tests.support.takes import take
from tests.support.wait import until_async

TIMES = 5
LIMIT = Limit(1000, Unit.HOUR, Algorithm.GCRA)
NAMES = [KeyNamer("test_guard")("d", [("key", f"v{i}")]) for i in range(64)]


@dataclass
class Rig:
    cluster: RealCluster
    counters: ClusterCounters
    local: LocalCounters
    guard: ClusterGuard
    takes: ClusterTakes
    errors: list[StoreError]
    changes: list[BreakerState] = field(default_factory=list)

    def owner(self, name: bytes) -> Node:
        return self.cluster.owner(slot_of(name))

    async def admitted(self, names: list[bytes]) -> list[int | Uncounted]:
        groups = [Group(take((name, LIMIT, 1)), 1) for name in names]
        return [taken.admitted if isinstance(taken, TakeResult) else taken for taken in await self.takes.take(groups)]  # type: ignore[misc]

    def names_at(self, node: Node) -> list[bytes]:
        return [name for name in NAMES if self.owner(name) is node]


@pytest.fixture
async def rig(shared_cluster: Callable[[str], RealCluster]) -> AsyncIterator[Rig]:
    cluster = shared_cluster("valkey")
    counters = ClusterCounters(cluster.url, 0.3)
    local = LocalCounters(counters.now_us, now_us_of=counters.now_us)
    errors: list[StoreError] = []
    guard = ClusterGuard(counters, local, ShardOf(), lambda: rig.changes.append(guard.state), errors.append)
    rig = Rig(cluster, counters, local, guard, ClusterTakes(guard, SeveralShards(guard)), errors)
    await guard.look()
    yield rig
    await guard.aclose()
    await counters.aclose()
    for node in cluster.masters:
        node.command("FLUSHALL")


def state(guard: ClusterGuard) -> BreakerState:
    return guard.state


async def reads(nodes: Sequence[Node], work: Callable[[], Awaitable[None]]) -> list[int]:
    """How often each node reads for the work, at least: in the background it is asked other things once in a while."""

    async def read(work: Callable[[], Awaitable[None]]) -> list[int]:
        counts = []
        for _ in range(TIMES):
            before = [_reads(node) for node in nodes]
            await work()
            counts.append([_reads(node) - then for node, then in zip(nodes, before, strict=True)])
        return [min(each) for each in zip(*counts, strict=True)]

    async def nothing() -> None:
        pass

    asking = await read(nothing)
    return [count - own for count, own in zip(await read(work), asking, strict=True)]


def _reads(node: Node) -> int:
    return int(node.command("INFO", "stats")["total_reads_processed"])


async def test_a_batch_is_one_write_a_master_and_one_run_a_shard(rig: Rig) -> None:
    async def take_all() -> None:
        assert await rig.admitted(NAMES) == [1] * len(NAMES)

    await take_all()
    nodes = rig.cluster.masters
    runs = [node.runs() for node in nodes]
    assert await reads(nodes, take_all) == [1] * len(nodes)
    shards = [sum(rig.cluster.owner(slot_of(tag.encode())) is node for tag in tags(SHARDS)) for node in nodes]
    assert [node.runs() - then for node, then in zip(nodes, runs, strict=True)] == [TIMES * each for each in shards]


async def test_runs_of_several_shards_that_are_asked_for_at_once_go_out_together(rig: Rig) -> None:
    node = rig.cluster.masters[0]
    by_shard: dict[int, list[bytes]] = {}
    for name in rig.names_at(node):
        by_shard.setdefault(rig.guard.shard_of(name), []).append(name)
    assert len(by_shard) > 2

    async def take_each() -> None:
        takes = [
            rig.guard.take(shard, [Group(take((name, LIMIT, 1)), 1) for name in names])
            for shard, names in by_shard.items()
        ]
        takens = await asyncio.gather(*takes)
        assert all(isinstance(taken, TakeResult) and taken.admitted for each in takens for taken in each)

    await take_each()
    assert await reads([node], take_each) == [1]


async def test_the_calls_of_a_silent_master_are_not_counted_and_the_others_are(rig: Rig) -> None:
    silent, *others = rig.cluster.masters
    silent.signal(signal.SIGSTOP)
    try:
        for expected in (Uncounted.SENT, Uncounted.UNSENT):  # it is found out, and then not asked
            admitted = dict(zip(NAMES, await rig.admitted(NAMES), strict=True))
            assert {admitted[name] for name in rig.names_at(silent)} == {expected}
            assert {admitted[name] for node in others for name in rig.names_at(node)} == {1}
        assert state(rig.guard) is not BreakerState.CLOSED
        said = f"1 of 3 masters: no answer from Redis at {silent.address} within 0.3 s"
        assert str(rig.guard.cause) == said
        assert BreakerState.CLOSED not in rig.changes[-1:]
        assert {error.kind for error in rig.errors} == {"timeout"}
        mine = rig.cluster.owner(slot_of(rig.counters.heartbeats_key)) is silent
        assert (rig.guard.registry_state is BreakerState.CLOSED) != mine
    finally:
        silent.signal(signal.SIGCONT)

    async def all_count() -> bool:
        await rig.guard.look()
        return state(rig.guard) is BreakerState.CLOSED

    await until_async(all_count, every_s=0.01)
    assert rig.changes[-1:] == [BreakerState.CLOSED]
    assert await rig.admitted(NAMES) == [1] * len(NAMES)


async def test_calls_have_a_part_for_each_master_and_combination_of_them(rig: Rig) -> None:
    first, second, third = (rig.names_at(node) for node in rig.cluster.masters)
    part_of = rig.takes.part_of
    parts = [part_of([each[0]]) for each in (first, second, third)]
    assert len(set(parts)) == 3
    assert part_of([first[1]]) == parts[0]
    assert part_of([first[0], second[0]]) == part_of([second[1], first[1], first[2]])
    assert len({part_of([first[0], second[0]]), part_of([first[0], third[0]]), *parts}) == 5


async def test_what_was_counted_without_a_master_is_settled_there(rig: Rig) -> None:
    name = rig.names_at(rig.cluster.masters[1])[0]
    groups = [Group(take((each, LIMIT, 1)), 3) for each in (name, rig.names_at(rig.cluster.masters[0])[0])]
    await rig.takes.take(groups)
    for group in groups:
        rig.local.take(group, group.take.checks, Uncounted.UNSENT)
    while rig.local.owes:
        await rig.guard.settle_some()
    for group in groups:
        (taken,) = await rig.counters.take([Group(take((group.take.names[0], LIMIT, 1)), 1000)])
        assert taken.admitted == 994


async def test_before_the_first_look_nothing_is_known(shared_cluster: Callable[[str], RealCluster]) -> None:
    counters = ClusterCounters(shared_cluster("valkey").url, 10)
    guard = ClusterGuard(counters, LocalCounters(counters.now_us), ShardOf())
    assert state(guard) is BreakerState.OPEN
    group = Group(take((NAMES[0], LIMIT, 1)), 1)
    assert await guard.take_whole([group]) == [Uncounted.UNSENT]
    await guard.look()
    assert state(guard) is BreakerState.CLOSED
    (taken,) = await guard.take_whole([group])
    assert isinstance(taken, TakeResult)
    await guard.aclose()
    await counters.aclose()
