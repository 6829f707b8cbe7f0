"""Random takes against counters in memory, in Redis, and against plain oracles."""

import asyncio
import secrets
from dataclasses import replace
from itertools import chain

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Mode, Source
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import HOUR, Clock
from tests.support.plain import Plain
from tests.support.stores import Store
from tests.support.takes import take

UNITS = (Unit.SECOND, Unit.MINUTE, Unit.HOUR)
requests = st.sampled_from([0, 1, 2, 3, 7, 10, 20, 60, 1000])
limits = st.builds(
    Limit,
    requests,
    st.sampled_from(UNITS),
    st.sampled_from(Algorithm),
    count_denied=st.booleans(),
)
costs = st.sampled_from([1, 1, 1, 2, 3, 11])
hits = costs | st.sampled_from([0, -1, -2, -20])
pauses = st.sampled_from([0, 0, 1, 999, 1_000_000, 5_999_999, 6_000_000, 61_000_000, HOUR])

jumps = pauses | st.sampled_from([-1, -61_000_000])  # a clock that is set back


modes = st.sampled_from(
    [
        (Mode.ENFORCED,) * 3,
        (Mode.ENFORCED, Mode.SHADOW, Mode.QUOTA),
        (Mode.QUOTA, Mode.SAME_QUOTA, Mode.QUOTA),
        (Mode.QUOTA,) * 3,
    ]
)


@st.composite
def groups(draw: st.DrawFn) -> list[Group]:
    names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)
    wants = names.map(
        lambda names: [
            (name.encode(), draw(limits), draw(hits), mode) for name, mode in zip(names, draw(modes), strict=False)
        ]
    )
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        held_to = [again(draw, want) for want in draw(wants)]
        groups.append(Group(take(*chain.from_iterable(held_to)), draw(st.integers(1, 5))))
    return groups


Want = tuple[bytes, Limit, int, Mode]


def again(draw: st.DrawFn, want: Want) -> list[Want]:
    """The same counter, now and then held to other numbers before this one."""
    name, limit, cost, mode = want
    others = draw(st.lists(requests, max_size=2)) if mode is Mode.ENFORCED else []
    return [*((name, replace(limit, requests_per_unit=other), cost, mode) for other in others), want]


steps = st.lists(st.tuples(groups(), jumps), min_size=1, max_size=12)


def renamed(group: Group, prefix: str) -> Group:
    return Group(CounterSet(tuple(prefix.encode() + name for name in group.take.names), group.take.checks), group.calls)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
async def test_redis_and_memory_do_the_same(any_store: Store, steps: list[tuple[list[Group], int]]) -> None:
    clock, prefix = Clock(), secrets.token_hex(8)
    memory = MemoryCounters(clock)
    stored = RedisCounters(any_store.url, 10, clock)
    try:
        for batch, pause in steps:
            named = [renamed(group, prefix) for group in batch]
            assert await stored.take(named) == await memory.take(named)
            clock.sleep(pause)
    finally:
        await stored.aclose()


POOL = {
    name: Limit(requests, unit, algorithm, count_denied=count_denied)
    for name, (requests, unit, algorithm, count_denied) in {
        b"a": (3, Unit.SECOND, Algorithm.GCRA, False),
        b"b": (2, Unit.SECOND, Algorithm.FIXED_WINDOW, False),
        b"c": (7, Unit.MINUTE, Algorithm.GCRA, False),
        b"d": (4, Unit.SECOND, Algorithm.FIXED_WINDOW, True),
        b"e": (4, Unit.SECOND, Algorithm.SLIDING_WINDOW, False),
    }.items()
}
pooled = st.builds(
    lambda names, costs, calls: Group(
        take(*((name, POOL[name], cost) for name, cost in zip(names, costs, strict=False))), calls
    ),
    st.lists(st.sampled_from(list(POOL)), min_size=1, max_size=3, unique=True),
    st.lists(costs, min_size=3, max_size=3),
    st.integers(1, 5),
)


def test_the_denial_cache_changes_no_decision() -> None:
    repeated = 0

    async def walk(steps: list[tuple[list[Group], int]]) -> None:
        nonlocal repeated
        clock = Clock()
        plain = MemoryCounters(clock)
        cached = DenialCache(MemoryCounters(clock), 1, clock)
        for batch, pause in steps:
            want = [taken.admitted for taken in await plain.take(batch)]
            takes = await cached.take(batch)
            assert [taken.admitted for taken in takes] == want
            groups = zip(batch, takes, strict=True)
            repeated += sum(group.calls for group, taken in groups if taken.source is Source.DENIAL_CACHE)
            clock.sleep(pause)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(st.lists(pooled, min_size=1, max_size=3), st.integers(0, 600_000)), max_size=20))
    def check(steps: list[tuple[list[Group], int]]) -> None:
        asyncio.run(walk(steps))

    check()
    assert repeated > 100


@settings(max_examples=300, deadline=None)
@given(limit=limits, calls=st.lists(st.tuples(costs, st.integers(1, 4), pauses), min_size=1, max_size=30))
async def test_memory_decides_as_the_plain_algorithm(limit: Limit, calls: list[tuple[int, int, int]]) -> None:
    clock, plain = Clock(), Plain(limit)
    memory = MemoryCounters(clock)
    for cost, equal, pause in calls:
        (taken,) = await memory.take([Group(take((b"c", limit, cost)), equal)])
        assert [i < taken.admitted for i in range(equal)] == [plain.take(clock(), cost) for _ in range(equal)]
        clock.sleep(pause)


@settings(max_examples=300, deadline=None)
@given(
    limit=limits,
    larger=st.lists(st.sampled_from([0, 1, 5, 100]), min_size=1, max_size=3),
    calls=st.lists(st.tuples(costs, st.integers(1, 4), pauses), min_size=1, max_size=30),
)
async def test_a_counter_of_several_limits_decides_as_the_smallest_alone(
    limit: Limit, larger: list[int], calls: list[tuple[int, int, int]]
) -> None:
    clock, plain = Clock(), Plain(limit)
    memory = MemoryCounters(clock)
    held_to = [*(replace(limit, requests_per_unit=limit.requests_per_unit + more) for more in larger), limit]
    for cost, equal, pause in calls:
        (taken,) = await memory.take([Group(take(*((b"c", each, cost) for each in held_to)), equal)])
        assert [i < taken.admitted for i in range(equal)] == [plain.take(clock(), cost) for _ in range(equal)]
        clock.sleep(pause)


@settings(max_examples=200, deadline=None)
@given(steps=steps)
async def test_a_group_is_as_good_as_its_calls_one_by_one(steps: list[tuple[list[Group], int]]) -> None:
    clock = Clock()
    together, single = MemoryCounters(clock), MemoryCounters(clock)
    for batch, pause in steps:
        for group, taken in zip(batch, await together.take(batch), strict=True):
            for call in range(group.calls):
                (one,) = await single.take([Group(group.take, 1)])
                assert (call < taken.admitted) == (one.admitted == 1)
                names = group.take.names
                for i, (check, level, level_of_one) in enumerate(
                    zip(group.take.checks, taken.levels, one.levels, strict=True)
                ):
                    if check.limit.algorithm is Algorithm.GCRA and names[i : i + 2] == names[i : i + 1] * 2:
                        continue  # of several limits: put into the last one's terms and back, it may be a tick more
                    told = check.outcome(level, call, taken.admitted)
                    told_of_one = check.outcome(level_of_one, 0, one.admitted)
                    if check.limit.algorithm is Algorithm.SLIDING_WINDOW and check.limit.count_denied and told.over:
                        # All denied calls of a group are told to wait as long as the last one.
                        assert (told.retry_after_us or 0) >= (told_of_one.retry_after_us or 0)
                        told = told._replace(retry_after_us=told_of_one.retry_after_us)
                    assert told == told_of_one
        clock.sleep(pause)


patient = limits.map(lambda limit: replace(limit, count_denied=False))


@settings(max_examples=300, deadline=None)
@given(cost=costs, calls=st.lists(st.tuples(patient, jumps), min_size=1, max_size=30))
async def test_who_waits_as_told_is_admitted_and_not_before(cost: int, calls: list[tuple[Limit, int]]) -> None:
    """Whatever limits the counter was held to before."""
    clock = Clock()
    memory = MemoryCounters(clock)

    async def retry_after_us(limit: Limit) -> int | None:
        (taken,) = await memory.take([Group(take((b"c", limit, cost)), 1)])
        return (
            LimitCheck(limit, cost).outcome(taken.levels[0], 0, taken.admitted).retry_after_us
            if not taken.admitted
            else 0
        )

    for limit, pause in calls:
        wait = await retry_after_us(limit)
        if wait:
            clock.sleep(wait - 1)
            assert await retry_after_us(limit) == 1
            clock.sleep(1)
            assert await retry_after_us(limit) == 0
        clock.sleep(pause)
