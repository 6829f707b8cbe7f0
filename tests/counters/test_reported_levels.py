"""What is known of the store's counters when it is away."""

import tracemalloc

import pytest

from extauth.counters.memory import MemoryCounters
from extauth.counters.reported_levels import ReportedLevels
from extauth.limiter.algorithms import algorithm_of
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Return
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import MINUTE, Clock
from tests.support.takes import take

LIMITS = [Limit(32, Unit.HOUR, algorithm, count_denied=denied) for algorithm in Algorithm for denied in (False, True)]


class Rig:
    """A store, and what is known of `counters` of its counters."""

    def __init__(self, counters: int) -> None:
        self.clock = Clock()
        self.store = MemoryCounters(self.clock)
        self.levels = ReportedLevels(counters)

    async def ask(self, what: CounterSet, calls: int = 1) -> None:
        groups = [Group(what, calls)]
        self.levels.remember(groups, await self.store.take(groups), self.clock())

    def used(self, name: bytes, limit: Limit) -> int:
        state = self.levels.state(name, algorithm_of(limit), self.clock())
        return 0 if state is None else state.used_hits(self.clock())


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_it_is_what_the_store_holds(limit: Limit) -> None:
    rig = Rig(9)
    await rig.ask(take((b"a", limit, 1)), 30)
    assert rig.used(b"a", limit) == 30
    await rig.ask(take((b"a", limit, 1)), 9)
    assert rig.used(b"a", limit) == (39 if limit.count_denied else 32)
    rig.clock.sleep(600 * MINUTE)
    assert rig.used(b"a", limit) == 0


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_up_to_a_sixteenth_of_a_limit_is_not_remembered(limit: Limit) -> None:
    rig = Rig(9)
    what = take((b"a", limit, 1))
    used = []
    for _ in range(5):
        await rig.ask(what)
        used.append(rig.used(b"a", limit))
    assert used == [0, 0, 0, 4, 5]


@pytest.mark.parametrize("limit", LIMITS[::2], ids=str)
async def test_hits_that_the_store_took_back_are_no_longer_used(limit: Limit) -> None:
    rig, algorithm = Rig(9), LimitCheck(limit, 1).algorithm
    await rig.ask(take((b"a", limit, 1)), 20)
    first_us = rig.clock()
    rig.levels.take_back([Return(b"a", algorithm, 5, first_us), Return(b"b", algorithm, 5, first_us)])
    assert rig.used(b"a", limit) == 15
    rig.levels.take_back([Return(b"a", algorithm, 5, first_us + 1)])
    assert rig.used(b"a", limit) == 15, "those were taken later than what is noted"
    rig.levels.take_back([Return(b"a", algorithm, 50, first_us)])
    assert rig.used(b"a", limit) == 0


async def test_of_several_limits_of_one_counter_the_last_holds() -> None:
    rig = Rig(9)
    small, large = (Limit(requests, Unit.HOUR, Algorithm.GCRA, count_denied=False) for requests in (8, 16))
    await rig.ask(take((b"a", large, 2), (b"a", small, 2), (b"b", large, 1)), 3)
    assert (rig.used(b"a", small), rig.used(b"b", large)) == (6, 3)


async def test_the_oldest_are_forgotten_and_those_that_come_again_are_not() -> None:
    rig = Rig(3)
    limit = LIMITS[0]
    takes = [take((b"%d" % i, limit, 9)) for i in range(6)]
    for what in takes:
        await rig.ask(what)
        await rig.ask(takes[0])
    assert rig.used(b"0", limit) == 27
    assert rig.used(b"5", limit) == 9
    assert rig.used(b"1", limit) == 0


async def test_memory_is_taken_as_counters_come() -> None:
    tracemalloc.start()
    rig, limit = Rig(100_000), LIMITS[0]
    assert tracemalloc.get_traced_memory()[0] < 100_000
    tracemalloc.stop()
    groups = [Group(take((b"%d" % i, limit, 9)), 1) for i in range(2000)]
    for _ in range(2):  # the second time their places are known
        rig.levels.remember(groups, await rig.store.take(groups), rig.clock())
    assert {rig.used(b"%d" % i, limit) for i in range(2000)} == {18}


async def test_another_algorithm_is_told_the_hits() -> None:
    rig = Rig(3)
    await rig.ask(take((b"a", LIMITS[0], 1)), 30)
    assert rig.used(b"a", Limit(99, Unit.HOUR, Algorithm.GCRA)) == 30
