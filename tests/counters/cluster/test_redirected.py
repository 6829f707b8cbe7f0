"""Calls that are redirected to a node that does not answer."""

from collections.abc import AsyncIterator

import pytest

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.limiter.counters import Group, Uncounted
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.fake_node import FakeNode, SilentNode
from tests.support.takes import take

LIMIT = Limit(10, Unit.HOUR, Algorithm.GCRA)
ONE = Group(take((b"{la2}", LIMIT, 1)), 1)
OTHER = Group(take((b"{la2}:other", LIMIT, 1)), 1)
UNSENT = Uncounted.UNSENT


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    async with FakeNode() as node:
        yield node


@pytest.fixture
async def silent() -> AsyncIterator[SilentNode]:
    async with SilentNode() as silent:
        yield silent


@pytest.fixture
async def counters(node: FakeNode) -> AsyncIterator[ClusterCounters]:
    counters = ClusterCounters(f"redis+cluster://{node.address}", 0.1)
    await counters.connect()
    yield counters
    await counters.aclose()


@pytest.mark.parametrize("how", ["ASK", "MOVED"])
@pytest.mark.parametrize("groups", [[ONE], [ONE, OTHER]], ids=["one", "batch"])
async def test_a_node_that_does_not_answer_is_not_waited_for_again_and_again(
    counters: ClusterCounters, node: FakeNode, silent: SilentNode, how: str, groups: list[Group]
) -> None:
    node.error = f"{how} 0 {silent.address}"
    (master,) = counters.topology.masters.values()
    for _ in range(20):
        assert await counters.take_at(master, groups) == [UNSENT] * len(groups)
    assert silent.connections == 1


async def test_it_is_asked_again_after_a_moment(
    counters: ClusterCounters, node: FakeNode, silent: SilentNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauth.counters.redis.cluster.topology.AWAY_S", 0.0)
    node.error = f"ASK 0 {silent.address}"
    (master,) = counters.topology.masters.values()
    for _ in range(20):
        assert await counters.take_at(master, [ONE]) == [UNSENT]
    assert silent.connections > 1
