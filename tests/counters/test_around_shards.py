"""What remembers denials, or parts a group's calls, around requests over several shards."""

import tracemalloc
from collections.abc import Sequence

import pytest

from extauth.counters.breaker import Breaker, BreakerState
from extauth.counters.denial_cache import GuardedDenialCache
from extauth.counters.memory import MemoryCounters
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.algorithms import Backlog
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Return, Source, Taken, TakeResult
from extauth.rules.model import Unit
from tests.counters.bench import gcra
from tests.counters.shard_rig import Rig, group_of
from tests.support.shards import SHARDS, FakeShards, at_once, on


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_the_denial_cache_learns_nothing_from_a_level_that_may_shrink(rig: Rig) -> None:
    """A caller's last hit is held by a call that a shared limit then denies; another of its calls came meanwhile."""
    own, shared = gcra(1), gcra(1, Unit.SECOND)
    cache = GuardedDenialCache(rig.counters, rig.counters, 1, rig.clock)
    both = group_of((0, own), (1, shared))
    alone = Group(CounterSet(both.take.names[:1], both.take.checks[:1]), 1)
    assert (await rig.take((1, shared))).admitted == 1
    meanwhile: list[Taken] = []

    async def pause() -> None:
        if len(rig.shards.runs) == 2:  # before the shared limit is asked
            rig.shards.pause = at_once
            meanwhile.extend(await cache.take([alone]))

    rig.shards.pause = pause
    (denied,) = await cache.take([both])
    await rig.counters.aclose()
    assert isinstance(denied, TakeResult)
    assert [taken.admitted for taken in (denied, *meanwhile) if isinstance(taken, TakeResult)] == [0, 0]
    (taken,) = await cache.take([alone])
    assert isinstance(taken, TakeResult)
    assert taken.admitted == 1, "the hit was given back"
    (taken,) = await cache.take([both])
    assert isinstance(taken, TakeResult)
    assert taken.source is Source.STORE


async def test_the_denial_cache_learns_from_counters_of_which_nothing_is_given_back(rig: Rig) -> None:
    cache = GuardedDenialCache(rig.counters, rig.counters, 1, rig.clock)
    group = group_of((0, gcra(1)))
    takens = [(await cache.take([group]))[0] for _ in range(3)]
    assert [taken.source for taken in takens if isinstance(taken, TakeResult)] == [
        Source.STORE,
        Source.STORE,
        Source.DENIAL_CACHE,
    ]


class Trying:
    """A shard whose breaker is half-open at each take: it asks for the first calls, and then for the rest."""

    def __init__(self, store: MemoryCounters) -> None:
        self._store = store

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        breaker = Breaker(self._store)
        breaker.state = BreakerState.OPEN
        takens = [taken for taken in await breaker.take(groups) if isinstance(taken, TakeResult)]
        await breaker.aclose()
        return takens

    async def give_back(self, returns: Sequence[Return]) -> None:
        await self._store.give_back(returns)


@pytest.mark.parametrize("most", [10, 40, 60])
async def test_a_trial_that_parts_the_calls_of_a_group_takes_no_more_in_the_end(rig: Rig, most: int) -> None:
    own, shared = gcra(most), gcra(99, Unit.SECOND)
    store = rig.shards.stores[1]
    assert isinstance(store, MemoryCounters)
    shards = [rig.shards.stores[0], Trying(store), *rig.shards.stores[2:]]
    counters = SeveralShards(FakeShards(shards))
    (taken,) = await counters.take([group_of((0, own), (1, shared), calls=50)])
    await counters.aclose()
    assert isinstance(taken, TakeResult)
    admitted = min(most, 50)
    assert taken.admitted == admitted
    assert (await rig.left(0, own), await rig.left(1, shared)) == (most - admitted, 99 - admitted)


class Empty:
    """A shard that holds nothing, and admits everything."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        return [TakeResult(group.calls, (Backlog(0, 0),) * len(group.take.checks)) for group in groups]

    async def give_back(self, returns: Sequence[Return]) -> None:
        pass


async def test_what_is_remembered_of_requests_over_shards_is_bounded() -> None:
    """However many checks and names callers invent."""
    shards = FakeShards([Empty()] * SHARDS)
    counters = SeveralShards(shards)

    def request(number: int) -> CounterSet:
        checks = (LimitCheck(gcra(10), 1 + number), LimitCheck(gcra(10), 1 + number))
        return CounterSet(tuple([on(shard, f"{number}{'x' * 400}") for shard in range(2)]), checks)

    tracemalloc.start()
    try:
        for number in range(7_000):
            await counters.take([Group(request(number), 1)])
            shards.runs.clear()
        assert tracemalloc.get_traced_memory()[0] < 14 << 20
    finally:
        tracemalloc.stop()

    def alone(number: int) -> CounterSet:
        take = request(number)
        return CounterSet(take.names[:1], take.checks[:1])

    assert [counters.may_shrink(alone(number)) for number in (0, 6_999)] == [False, True]
