"""Counters in the process when there is no room for more of them."""

import gc
import tracemalloc
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.counters.counter_table import ENTRY_BYTES
from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import SECOND, Clock
from tests.support.takes import take

ALGORITHMS = list(Algorithm)


def limit(algorithm: Algorithm, requests: int = 3, unit: Unit = Unit.SECOND) -> Limit:
    return Limit(requests, unit, algorithm, count_denied=False)


async def admitted(counters: MemoryCounters, *names: bytes, of: Limit, calls: int = 1) -> int:
    (taken,) = await counters.take([Group(take(*((name, of, 1) for name in names)), calls)])
    return taken.admitted


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_who_has_a_counter_is_counted_and_who_has_none_is_denied_until_one_expires(algorithm: Algorithm) -> None:
    clock, rule = Clock(), limit(algorithm)
    counters = MemoryCounters(clock, 2 * (ENTRY_BYTES + 1) + 2 * 96)
    assert await admitted(counters, b"a", of=rule) == 1
    assert await admitted(counters, b"b", of=rule, calls=9) == 3
    assert await admitted(counters, b"c", of=rule) == 0
    assert await admitted(counters, b"a", of=rule, calls=9) == 2
    clock.sleep(2 * SECOND)
    assert await admitted(counters, b"c", b"d", of=rule) == 1
    assert await admitted(counters, b"c", of=rule, calls=9) == 2
    assert await admitted(counters, b"a", of=rule) == 0


async def test_a_call_that_needs_two_counters_is_denied_where_there_is_room_for_one() -> None:
    counters, rule = MemoryCounters(Clock(), 2 * (ENTRY_BYTES + 1) + 2 * 96), limit(Algorithm.GCRA)
    assert await admitted(counters, b"a", of=rule) == 1
    assert await admitted(counters, b"b", b"c", of=rule) == 0
    assert await admitted(counters, b"b", of=rule) == 1


calls = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, SECOND)), max_size=60)


@settings(deadline=None)
@given(algorithm=st.sampled_from(ALGORITHMS), room=st.integers(1, 5), calls=calls)
async def test_never_too_much_is_admitted(algorithm: Algorithm, room: int, calls: list[tuple[int, int, int]]) -> None:
    clock, rule = Clock(), limit(algorithm)
    counters = MemoryCounters(clock, room * (ENTRY_BYTES + 1) + 96)
    instants: dict[int, list[int]] = defaultdict(list)
    for name, number, pause in calls:
        instants[name] += [clock()] * await admitted(counters, b"%d" % name, of=rule, calls=number)
        clock.sleep(pause)
    for times in instants.values():
        for first in times:
            if algorithm is Algorithm.FIXED_WINDOW:
                within = [t for t in times if t // SECOND == first // SECOND]
            else:
                within = [t for t in times if first <= t < first + SECOND]
            # A full bucket refills while it is used: the burst, and what a second brings.
            assert len(within) <= (2 * 3 if algorithm is Algorithm.GCRA else 3)


async def test_a_log_that_is_full_counts_longer_and_not_less() -> None:
    clock, rule = Clock(), limit(Algorithm.SLIDING_WINDOW, 100, Unit.MINUTE)
    counters = MemoryCounters(clock, ENTRY_BYTES + 1 + 96 * 9)
    total = 0
    for _ in range(120):
        total += await admitted(counters, b"a", of=rule)
        clock.sleep(100_000)
    assert total == 100
    clock.sleep(60 * SECOND)
    assert await admitted(counters, b"a", of=rule, calls=200) == 100


async def test_the_oldest_hits_of_a_full_log_leave_it_in_their_time() -> None:
    clock, rule = Clock(), limit(Algorithm.SLIDING_WINDOW, 20, Unit.MINUTE)
    counters = MemoryCounters(clock, ENTRY_BYTES + 1 + 96 * 9)
    for _ in range(20):
        assert await admitted(counters, b"a", of=rule) == 1
        clock.sleep(SECOND)
    clock.sleep(42 * SECOND)
    assert await admitted(counters, b"a", of=rule, calls=99) == 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_they_take_no_more_than_they_may(algorithm: Algorithm) -> None:
    clock, rule, allowed = Clock(), limit(algorithm, 50, Unit.HOUR), 800_000
    counters = MemoryCounters(clock, allowed)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for i in range(2000):
        for _ in range(3):
            clock.sleep(37_000)
            await admitted(counters, b"extauth:{lp0}:3:api,7:api_key=%022d" % i, of=rule)
    gc.collect()  # what waits for it is no longer held
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 800 < len(counters) < 2000
    assert allowed / 2 < after - before < allowed
