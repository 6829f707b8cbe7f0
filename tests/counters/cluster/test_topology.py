"""Who is believed about which master serves a slot, among nodes that say different things."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from time import monotonic

import pytest

from extauth.counters.local import LocalCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.master import MasterOptions
from extauth.counters.redis.cluster.topology import (
    FIRST_REDIRECTED_S,
    LONGEST_REDIRECTED_S,
    SETTLED_S,
    SPAN_PAUSE_S,
    Topology,
)
from extauth.counters.redis.cluster.url import read_cluster_url
from extauth.errors import StoreError
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.counters import Group, Uncounted
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.fake_node import FakeNode
from tests.support.takes import take
from tests.support.wait import until_async

GROUP = Group(take((b"{la2}", Limit(10, Unit.HOUR, Algorithm.GCRA), 1)), 1)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def nodes(stack: AsyncExitStack, *greetings: tuple[str, str]) -> list[FakeNode]:
    return [await stack.enter_async_context(FakeNode(*greeting)) for greeting in greetings]


def counters_at(stack: AsyncExitStack, *seeds: FakeNode) -> ClusterCounters:
    counters = ClusterCounters("redis+cluster://" + ",".join(seed.address for seed in seeds), 10)
    stack.push_async_callback(counters.aclose)
    return counters


def ports(counters: ClusterCounters) -> list[int]:
    return [address.port for address in counters.topology.masters]


async def test_a_node_that_is_outvoted_is_not_believed(stack: AsyncExitStack) -> None:
    old, new, third = await nodes(stack, *[("cluster", "master")] * 3)
    for node in (new, third):
        node.master = new.port
    counters = counters_at(stack, old, new, third)
    await counters.connect()
    assert ports(counters) == [new.port]


async def test_where_there_is_no_majority_what_was_known_stays(stack: AsyncExitStack) -> None:
    first, second = await nodes(stack, *[("cluster", "master")] * 2)
    second.master = first.port
    counters = counters_at(stack, first, second)
    await counters.connect()
    second.master = second.port
    await counters.topology.refresh()
    assert ports(counters) == [first.port]
    first.master = second.port
    await counters.topology.refresh()
    assert ports(counters) == [second.port]


async def test_a_master_that_is_a_replica_is_refused(stack: AsyncExitStack) -> None:
    seed, replica = await nodes(stack, ("cluster", "master"), ("cluster", "replica"))
    seed.master = replica.master = replica.port
    said = f"Redis at {replica.address} is a replica, though nodes of the cluster call it the master of its slots"
    with pytest.raises(StoreError, match=said):
        await counters_at(stack, seed).connect()


async def test_a_server_of_no_cluster_at_the_address_of_a_master_is_refused(stack: AsyncExitStack) -> None:
    seed, other = await nodes(stack, ("cluster", "master"), ("standalone", "master"))
    seed.master = other.port
    with pytest.raises(StoreError, match=f"Redis at {other.address} belongs to no Redis Cluster: "):
        await counters_at(stack, seed).connect()


async def test_nodes_that_all_say_that_they_are_of_none_are_a_cluster_that_only_looks_like_one(
    stack: AsyncExitStack,
) -> None:
    (node,) = await nodes(stack, ("standalone", "master"))
    counters = counters_at(stack, node)
    await counters.connect()
    assert ports(counters) == [node.port]


async def test_nodes_that_redirect_in_a_circle_are_given_up(stack: AsyncExitStack) -> None:
    first, second = await nodes(stack, *[("cluster", "master")] * 2)
    second.master = first.port
    first.error, second.error = f"MOVED 0 {second.address}", f"MOVED 0 {first.address}"
    counters = counters_at(stack, first)
    with pytest.raises(StoreError, match="its slot of the Redis Cluster is moving") as raised:
        await counters.take([GROUP])
    assert not raised.value.sent
    await until_async(lambda: first.asked > 1)  # who serves it, once more


class ByClock(Topology):
    """A topology of what is at one node, by a clock of its own; notes when the nodes are to be asked."""

    def __init__(self, seed: FakeNode) -> None:
        self.now_s = 0.0
        self.asked_s: list[float] = []
        url = read_cluster_url(f"redis+cluster://{seed.address}")
        options = MasterOptions(10, lambda _where, _greeting: None, None, "")
        super().__init__(url, options, clock=lambda: self.now_s)

    def refresh_soon(self) -> None:
        self.asked_s.append(self.now_s)
        super().refresh_soon()


async def test_nodes_that_redirect_in_a_circle_are_not_asked_for_each_call(stack: AsyncExitStack) -> None:
    first, second = await nodes(stack, *[("cluster", "master")] * 2)
    second.master = first.port
    first.error, second.error = f"MOVED 0 {second.address}", f"MOVED 0 {first.address}"
    counters = counters_at(stack, first)
    topology = counters.topology = ByClock(first)
    for _ in range(300):
        with pytest.raises(StoreError, match="its slot of the Redis Cluster is moving"):
            await counters.take([GROUP])
    await until_async(lambda: first.asked > 1)  # at the start, and after the first call
    assert len(topology.asked_s) == 1


def test_where_calls_are_redirected_without_end_the_nodes_are_asked_less_and_less_often() -> None:
    topology = ByClock(FakeNode())
    for seconds in (range(2000), range(2000 + 700, 2000 + 704)):
        for hundredths in seconds:
            topology.now_s = hundredths / 100
            topology.note_redirected()
    pauses = [later - before for before, later in pairwise(topology.asked_s)]
    *without_end, silence, first = pauses
    for i, pause in enumerate(without_end):
        longest = min(FIRST_REDIRECTED_S * 2**i, LONGEST_REDIRECTED_S)
        assert longest / 2 <= pause + 1e-6
        assert pause <= longest + 0.011
    assert sum(without_end) > 15
    assert silence > SETTLED_S
    assert first <= FIRST_REDIRECTED_S + 0.011


async def test_once_others_serve_the_slots_a_redirection_has_the_nodes_asked_at_once(stack: AsyncExitStack) -> None:
    first, second = await nodes(stack, *[("cluster", "master")] * 2)
    topology = ByClock(first)
    stack.push_async_callback(topology.aclose)
    await topology.refresh()
    for _ in range(1000):
        topology.now_s += 0.01
        topology.note_redirected()
    asked = len(topology.asked_s)
    topology.note_redirected()
    assert len(topology.asked_s) == asked
    first.master = second.master = second.port
    await topology.refresh()
    topology.note_redirected()
    assert len(topology.asked_s) == asked + 1


async def test_a_slot_that_is_not_served_is_not_counted_and_the_master_is_asked_on(stack: AsyncExitStack) -> None:
    (node,) = await nodes(stack, ("cluster", "master"))
    counters = counters_at(stack, node)
    guard = ClusterGuard(counters, LocalCounters(counters.now_us), ShardOf())
    stack.push_async_callback(guard.aclose)
    node.error = "CLUSTERDOWN Hash slot not served"
    await guard.look()
    assert await guard.take_whole([GROUP]) == [Uncounted.UNSENT]
    node.error = "CLUSTERDOWN The cluster is down"
    with pytest.raises(StoreError, match=f"Redis at {node.address} says that its cluster is down: ") as raised:
        await guard.take_whole([GROUP])
    assert not raised.value.sent
    assert str(guard.cause).startswith(f"1 of 1 masters: Redis at {node.address} says that its cluster is down: ")


async def test_nodes_with_very_many_spans_are_asked_less_often(stack: AsyncExitStack) -> None:
    (node,) = await nodes(stack, ("cluster", "master"))
    node.spans = 4096
    counters = counters_at(stack, node)
    counters.topology.troubled = lambda: True
    await counters.connect()
    await until_async(lambda: node.asked >= 2)
    began, asked = monotonic(), node.asked
    await until_async(lambda: node.asked >= asked + 2)
    assert monotonic() - began >= 4096 * SPAN_PAUSE_S
