"""Giving hits back that were taken in vain: a shard takes back what it still holds of just these, and never more."""

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.algorithms import algorithm_of
from extauth.limiter.counters import Group, LimitCheck, Part, Return, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.counters.bench import gcra, sliding, window
from tests.support.clock import HOUR, MINUTE, SECOND, Clock
from tests.support.stores import SERVERS, Store
from tests.support.takes import limits


class OneShard(RedisCounters):
    """A shard that is a server of its own."""

    take = RedisCounters.take_parts


@dataclass
class Shard:
    counters: MemoryCounters | OneShard
    clock: Clock
    prefix: bytes

    async def take(self, limit: Limit, calls: int, most: int | None = None, *, name: bytes = b"a") -> TakeResult:
        part, taken = await self.reserve(limit, calls, most, name=name)
        assert part.taken_at_us == self.clock()
        return taken

    async def reserve(
        self, limit: Limit, calls: int, most: int | None = None, *, name: bytes = b"a"
    ) -> tuple[Part, TakeResult]:
        part = Part((self.prefix + name,), (LimitCheck(limit, 1),), calls if most is None else most)
        (taken,) = await self.counters.take([Group(part, calls)])
        return part, taken

    async def give_back(self, limit: Limit, hits: int, at_us: int, *, name: bytes = b"a") -> None:
        await self.counters.give_back([Return(self.prefix + name, algorithm_of(limit), hits, at_us)])


@pytest.fixture(params=["memory", *SERVERS])
async def shard(request: pytest.FixtureRequest, shared_store: Callable[[str], Store]) -> AsyncIterator[Shard]:
    clock = Clock()
    if request.param == "memory":
        yield Shard(MemoryCounters(clock), clock, b"")
    else:
        counters = OneShard(shared_store(request.param).url, 10, clock)
        yield Shard(counters, clock, secrets.token_bytes(8))
        await counters.aclose()


LIMITS = [gcra(10), window(10, count_denied=False), sliding(10)]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_only_as_many_calls_are_admitted_as_other_shards_let_pass(shard: Shard, limit: Limit) -> None:
    assert (await shard.take(limit, 6, 4)).admitted == 4
    assert (await shard.take(limit, 6, 0)).admitted == 0
    assert (await shard.take(limit, 99, 98)).admitted == 6


async def test_each_group_of_a_run_is_held_to_what_other_shards_let_pass_of_it(shard: Shard) -> None:
    parts = [Part((shard.prefix + name,), (LimitCheck(gcra(10), 1),), most) for name, most in ((b"a", 3), (b"b", 5))]
    takens = await shard.counters.take([Group(part, 9) for part in parts])
    assert [taken.admitted for taken in takens] == [3, 5]


@pytest.mark.parametrize("limit", [gcra(10, count_denied=True), window(10), sliding(10, count_denied=True)], ids=str)
async def test_what_other_shards_deny_counts_where_denied_hits_do(shard: Shard, limit: Limit) -> None:
    assert (await shard.take(limit, 6, 0)).admitted == 0
    assert (await shard.take(limit, 9, 9)).admitted == 4


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_hits_given_back_at_one_instant_are_as_if_never_taken(shard: Shard, limit: Limit) -> None:
    part, taken = await shard.reserve(limit, 7)
    assert taken.admitted == 7
    assert part.taken_at_us is not None
    await shard.give_back(limit, 5, part.taken_at_us)
    assert (await shard.take(limit, 99)).admitted == 8


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_no_more_is_admitted_than_the_limit_however_often_hits_are_given_back(shard: Shard, limit: Limit) -> None:
    """A counter that was given back more than it held would admit more at one instant than its limit."""
    admitted = (await shard.take(limit, 10)).admitted
    at_us = shard.clock()
    shard.clock.sleep(2 * MINUTE)  # all of it has drained, or ended
    admitted = (await shard.take(limit, 10)).admitted
    await shard.give_back(limit, 10, at_us)
    assert admitted + (await shard.take(limit, 99)).admitted == 10


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_nothing_is_given_back_to_a_counter_that_is_gone_or_never_was(shard: Shard, limit: Limit) -> None:
    await shard.give_back(limit, 3, shard.clock())
    assert (await shard.take(limit, 99)).admitted == 10


async def test_a_fixed_window_takes_nothing_back_from_the_one_before(shard: Shard) -> None:
    limit = window(10, count_denied=False)
    shard.clock.sleep(MINUTE - 1)
    assert (await shard.take(limit, 5)).admitted == 5
    at_us = shard.clock()
    shard.clock.sleep(1)
    assert (await shard.take(limit, 10)).admitted == 10
    await shard.give_back(limit, 5, at_us)
    assert (await shard.take(limit, 99)).admitted == 0


async def test_a_bucket_takes_back_at_most_what_cannot_have_drained(shard: Shard) -> None:
    limit = gcra(10)  # one each 6 s
    assert (await shard.take(limit, 5)).admitted == 5
    at_us = shard.clock()
    shard.clock.sleep(12 * SECOND)
    assert (await shard.take(limit, 7)).admitted == 7, "of the five hits two have drained"
    await shard.give_back(limit, 5, at_us)
    assert (await shard.take(limit, 99)).admitted == 3


async def test_a_sliding_window_takes_back_the_hits_of_that_instant(shard: Shard) -> None:
    limit = sliding(10)
    for calls in (2, 3, 4):
        assert (await shard.take(limit, calls)).admitted == calls
        shard.clock.sleep(10 * SECOND)
    await shard.give_back(limit, 2, shard.clock() - 20 * SECOND)
    assert (await shard.take(limit, 99)).admitted == 3
    shard.clock.sleep(31 * SECOND)  # the first two have left the window
    assert (await shard.take(limit, 99)).admitted == 2
    shard.clock.sleep(10 * SECOND)  # so has the third that was left
    assert (await shard.take(limit, 99)).admitted == 1
    shard.clock.sleep(10 * SECOND)  # and the last four
    assert (await shard.take(limit, 99)).admitted == 4


async def test_a_sliding_window_takes_back_no_more_than_it_took_at_that_instant(shard: Shard) -> None:
    limit = sliding(10)
    for calls in (2, 3):
        assert (await shard.take(limit, calls)).admitted == calls
        shard.clock.sleep(SECOND)
    await shard.give_back(limit, 5, shard.clock() - SECOND)
    assert (await shard.take(limit, 99)).admitted == 8


async def test_a_sliding_window_takes_nothing_back_from_later_hits(shard: Shard) -> None:
    limit = sliding(10)
    part, _ = await shard.reserve(limit, 3)
    assert part.taken_at_us is not None
    await shard.give_back(limit, 3, part.taken_at_us)
    shard.clock.sleep(SECOND)
    assert (await shard.take(limit, 6)).admitted == 6
    await shard.give_back(limit, 3, part.taken_at_us)
    assert (await shard.take(limit, 99)).admitted == 4


async def test_a_sliding_window_finds_hits_whose_instant_is_rounded(shard: Shard) -> None:
    limit = sliding(20_000)  # hits of 60 ms are kept together
    shard.clock.sleep(1)
    assert (await shard.take(limit, 15_000)).admitted == 15_000
    await shard.give_back(limit, 10_000, shard.clock())
    assert (await shard.take(limit, 99_000)).admitted == 15_000


async def test_a_sliding_window_from_which_all_is_given_back_holds_what_was_before(shard: Shard) -> None:
    limit = sliding(10)
    assert (await shard.take(limit, 2)).admitted == 2
    shard.clock.sleep(10 * SECOND)
    assert (await shard.take(limit, 3)).admitted == 3
    await shard.give_back(limit, 3, shard.clock())
    (level,) = (await shard.take(limit, 0)).levels
    assert level == (2, 50 * SECOND, 0)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_nothing_is_given_back_once_the_counter_is_in_other_terms(shard: Shard, limit: Limit) -> None:
    part, _ = await shard.reserve(limit, 5)
    assert part.taken_at_us is not None
    other = {
        Algorithm.GCRA: gcra(100),
        Algorithm.FIXED_WINDOW: gcra(10),
        Algorithm.SLIDING_WINDOW: sliding(10, Unit.HOUR),
    }[limit.algorithm]
    before = (await shard.take(other, 1)).levels
    await shard.give_back(limit, 5, part.taken_at_us)
    level = (await shard.take(other, 0)).levels[0]
    held = LimitCheck(other, 1).algorithm.used_hits(level)
    assert held == LimitCheck(other, 1).algorithm.used_hits(before[0]) + 1


async def test_several_counters_take_back_in_one_run(shard: Shard) -> None:
    at_us = shard.clock()
    for limit, name in zip(LIMITS, (b"a", b"b", b"c"), strict=True):
        assert (await shard.take(limit, 10, name=name)).admitted == 10
    returns = [
        Return(shard.prefix + name, algorithm_of(limit), hits, at_us)
        for limit, name, hits in zip(LIMITS, (b"a", b"b", b"c"), (1, 2, 3), strict=True)
    ]
    await shard.counters.give_back(returns)
    assert [
        (await shard.take(limit, 99, name=name)).admitted
        for limit, name in zip(LIMITS, (b"a", b"b", b"c"), strict=True)
    ] == [1, 2, 3]


flags = st.booleans()
pauses = st.sampled_from([0, 0, 1, 999, 50_000, 1_000_000, 5_999_999, 61_000_000])
jumps = pauses | st.sampled_from([-1, -61_000_000, HOUR])  # a clock that is set back, or far ahead


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_redis_and_memory_give_back_alike(any_store: Store, data: st.DataObject) -> None:
    clock, prefix = Clock(), secrets.token_bytes(8)
    memory = MemoryCounters(clock)
    stored = OneShard(any_store.url, 10, clock)
    receipts: list[tuple[bytes, Limit, int]] = []
    try:
        for _ in range(data.draw(st.integers(1, 12))):
            name, limit = prefix + data.draw(st.sampled_from([b"a", b"b"])), data.draw(limits)
            if data.draw(flags) and receipts:
                chosen = data.draw(st.lists(st.sampled_from(receipts), min_size=1, max_size=3))
                returns = [
                    Return(its_name, algorithm_of(its_limit), data.draw(st.integers(1, 5)), at_us)
                    for its_name, its_limit, at_us in chosen
                ]
                for counters in (memory, stored):
                    await counters.give_back(returns)
            checks = (LimitCheck(limit, data.draw(st.sampled_from([1, 1, 2, 3]))),)
            calls, most = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
            parts = [Part((name,), checks, most) for _ in range(2)]
            groups = [Group(part, calls) for part in parts]
            assert await stored.take(groups[:1]) == await memory.take(groups[1:])
            assert parts[0].taken_at_us == parts[1].taken_at_us == clock()
            receipts.append((name, limit, clock()))
            clock.sleep(data.draw(jumps))
    finally:
        await stored.aclose()


steps = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), pauses, pauses), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(unit=st.sampled_from([Unit.SECOND, Unit.MINUTE]), algorithm=st.sampled_from(Algorithm), steps=steps)
async def test_a_counter_never_holds_less_than_if_the_hits_had_never_been_taken(
    unit: Unit, algorithm: Algorithm, steps: list[tuple[int, int, int, int]]
) -> None:
    """Beside a counter that only those take from who keep it; a window holds just as much as that one."""
    limit = Limit(1000, unit, algorithm, count_denied=False)
    clock = Clock()
    shard, oracle = Shard(MemoryCounters(clock), clock, b""), Shard(MemoryCounters(clock), clock, b"")
    for kept, in_vain, before, after in steps:
        at_us = clock()
        if in_vain:
            assert (await shard.take(limit, in_vain)).admitted == in_vain
        clock.sleep(before)
        for each in (shard, oracle):
            assert (await each.take(limit, kept)).admitted == kept
        if in_vain:
            await shard.give_back(limit, in_vain, at_us)
        clock.sleep(after)
        level, its_level = [(await each.take(limit, 0)).levels[0] for each in (shard, oracle)]
        if algorithm is Algorithm.GCRA:
            assert tuple(level) >= tuple(its_level)
            if not any(pause for _, _, pause, _ in steps):
                assert level == its_level
        else:
            assert level == its_level
