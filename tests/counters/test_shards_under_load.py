"""Requests over several shards at the same time: none is admitted beyond a limit, and few are denied without need."""

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import fields

import pytest

from extauth.errors import StoreError
from extauth.limiter.counters import Return
from tests.support.clock import Clock
from tests.support.cluster import RealCluster
from tests.support.shard_load import AT_A_TIME, Judgement, Load
from tests.support.shards import FakeShards, OneShard, in_memory, on_cluster, on_one_server
from tests.support.stores import Store

SEEDS, REQUESTS = 20, 500  # 10,000 in all


async def judged(seeds: int, requests: int, *, in_batches: bool = False, together: bool = False) -> Judgement:
    """What became of the requests of so many seeds, in memory, on shards whose clocks differ."""
    found = []
    for seed in range(seeds):
        clock, skews_us = Clock(), [0, 123_456, -7_000_001, seed]
        load = Load(seed, in_memory(clock, skews_us=skews_us), clock, together=together, skews_us=skews_us)
        await load.run(requests, at_a_time=4 if in_batches else AT_A_TIME, in_batches=in_batches)
        found.append(load.judge())
    return total(found)


def total(judgements: Sequence[Judgement]) -> Judgement:
    return Judgement(**{each.name: sum(getattr(one, each.name) for one in judgements) for each in fields(Judgement)})


async def test_nothing_is_admitted_beyond_a_limit_and_little_denied_without_need() -> None:
    found = await judged(SEEDS, REQUESTS)
    assert found.over == 0
    assert found.too_much <= 0.005 * found.others
    assert 0.3 < found.admitted / found.others < 0.8, "many are denied with need"


async def test_nothing_of_a_batch_is_admitted_beyond_a_limit() -> None:
    found = await judged(10, REQUESTS, in_batches=True)
    assert found.over == 0
    assert found.too_much <= 0.02 * found.others, "16 calls are on their way at a time, in groups"
    assert 0.3 < found.admitted / found.others < 0.95


async def test_nothing_is_denied_without_need_where_counters_lie_together() -> None:
    found = await judged(SEEDS, REQUESTS, together=True)
    assert (found.over, found.too_much) == (0, 0)
    assert 0.3 < found.admitted / found.others < 0.95


@pytest.mark.parametrize("seed", range(2))
async def test_the_scripts_of_redis_do_the_same(any_store: Store, seed: int) -> None:
    clock = Clock()
    server = OneShard(any_store.url, 10, clock)
    load = Load(seed, on_one_server(server), clock, secrets.token_hex(8))
    await load.run(600, at_a_time=6)
    await server.aclose()
    found = load.judge()
    assert found.over == 0
    assert found.too_much <= 0.02 * found.others, "answers come in turns, so that more is held at a time"


async def test_a_real_cluster_does_the_same(shared_cluster: Callable[[str], RealCluster]) -> None:
    clock = Clock()
    async with on_cluster(shared_cluster("valkey").url, clock) as shards:
        load = Load(1, shards, clock, secrets.token_hex(8))
        await load.run(600, at_a_time=6)
        found = load.judge()
        assert len(load.requests) == 600
        assert all(request.admitted is not None for request in load.requests)
        assert found.over == 0
        assert found.too_much <= 0.02 * found.others
        assert shards.returned


class Losing(FakeShards):
    """Shards whose answers are lost now and then, or the request for one: in either case nobody knows which it was."""

    def __init__(self, shards: FakeShards, chance: random.Random) -> None:
        super().__init__(shards.stores)
        self._chance = chance
        self.lost_returns = 0
        self.answered = lambda _shard, _groups: self._lose()

    async def give_back(self, shard: int, returns: Sequence[Return]) -> None:
        try:
            self._lose(0.3)
            await super().give_back(shard, returns)
            self._lose(0.3)
        except StoreError:
            self.lost_returns += 1
            raise

    def _lose(self, part: float = 0.05) -> None:
        if self._chance.random() < part:
            raise self.lost()


@pytest.mark.parametrize("seed", range(10))
async def test_lost_takes_and_returns_admit_nothing_beyond_a_limit(seed: int) -> None:
    clock = Clock()
    shards = Losing(in_memory(clock), random.Random(seed))  # noqa: S311
    load = Load(seed, shards, clock)
    await load.run(REQUESTS)
    assert load.judge().over == 0
    assert shards.lost_returns > 0
