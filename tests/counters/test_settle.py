"""Writing into a store what was counted without it."""

import secrets
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.algorithms import algorithm_of
from extauth.limiter.counters import Group, Owed, TakeResult
from extauth.rules.model import Algorithm, Limit
from tests.support.clock import Clock
from tests.support.stores import Store
from tests.support.takes import limits, take

pauses = st.sampled_from([0, 1, 999, 1_000_000, 5_999_999, 61_000_000])


@st.composite
def numbers(draw: st.DrawFn, limit: Limit, now: int) -> tuple[int, ...]:
    if limit.algorithm is Algorithm.GCRA:
        return (draw(st.integers(1, 3 * limit.emission_interval.ticks)),)
    hits = st.integers(1, 4)
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        end_us = now - now % limit.period_us + limit.period_us
        return draw(st.sampled_from([end_us, end_us - limit.period_us])), draw(hits)
    ages = sorted(draw(st.lists(st.sampled_from([0, 1, 999_999, 1_000_000, 30_000_000]), min_size=1, max_size=4)))
    return tuple(number for age in reversed(ages) for number in (now - age, draw(hits)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_redis_and_memory_settle_alike(any_store: Store, data: st.DataObject) -> None:
    clock, prefix = Clock(), secrets.token_bytes(8)
    memory = MemoryCounters(clock)
    stored = RedisCounters(any_store.url, 10, clock)
    try:
        for _ in range(data.draw(st.integers(1, 10))):
            name, limit = prefix + data.draw(st.sampled_from([b"a", b"b"])), data.draw(limits)
            if data.draw(st.booleans()):
                owed = [Owed(name, algorithm_of(limit), data.draw(numbers(limit, clock())))]
                for counters in (memory, stored):
                    await counters.settle(owed)
            group = Group(
                take((name, limit, data.draw(st.sampled_from([0, 1, 1, 2, -1])))), data.draw(st.integers(1, 4))
            )
            assert await stored.take([group]) == await memory.take([group])
            clock.sleep(data.draw(pauses))
    finally:
        await stored.aclose()


async def _take(counters: MemoryCounters, limit: Limit, calls: int) -> TakeResult:
    (taken,) = await counters.take([Group(take((b"a", limit, 1)), calls)])
    return taken


steps = st.lists(st.tuples(st.integers(1, 4), pauses), min_size=1, max_size=6)


@settings(deadline=None)
@given(limit=limits, before=steps, meanwhile=steps)
async def test_what_is_settled_is_as_if_the_store_had_been_asked(
    limit: Limit, before: Sequence[tuple[int, int]], meanwhile: Sequence[tuple[int, int]]
) -> None:
    """Beside an oracle that counts everything in one place; the one that was away begins where the store was."""
    clock = Clock()
    oracle, store, algorithm = MemoryCounters(clock), MemoryCounters(clock), algorithm_of(limit)
    for calls, pause in before:
        assert await _take(oracle, limit, calls) == await _take(store, limit, calls)
        clock.sleep(pause)
    level = (await _take(store, limit, 0)).levels[0]
    if limit.algorithm is Algorithm.SLIDING_WINDOW:
        level = algorithm.read(0, 0)  # a seed does not know when each hit leaves; see below
    seed = state = algorithm.seed(level, algorithm, clock())
    for calls, pause in meanwhile:
        admitted = (await _take(oracle, limit, calls)).admitted
        hits = calls if limit.count_denied else admitted
        if hits:
            state = algorithm.take(state, hits, clock())
        clock.sleep(pause)
    if state is not None and (numbers := algorithm.owed(seed, state, clock())):
        await store.settle([Owed(b"a", algorithm, numbers)])
    assert await _take(store, limit, 1) == await _take(oracle, limit, 1)


@given(limit=limits, hits=st.integers(1, 30), share=st.sampled_from([1, 2, 3, 7]))
def test_what_is_used_up_is_used_up_in_a_share(limit: Limit, hits: int, share: int) -> None:
    now = 1_700_000_000_000_000
    whole = algorithm_of(limit)
    part = algorithm_of(
        Limit(max(limit.requests_per_unit // share, 1), limit.unit, limit.algorithm, count_denied=limit.count_denied)
    )
    level = whole.level(whole.take(None, min(hits, limit.capacity), now), now)
    seeded = part.level(part.seed(level, whole, now), now)
    if not whole.calls_that_fit(1, level):
        assert not part.calls_that_fit(1, seeded)
    assert part.calls_that_fit(1, seeded) <= whole.calls_that_fit(1, level)
