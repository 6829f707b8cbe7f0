"""What every implementation of limiter.counters.Counters does with a sliding window."""

import secrets
import tracemalloc

from redis.asyncio import Redis

from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.algorithms import LogUsage
from extauth.limiter.counters import CounterSet, Group, LimitCheck
from extauth.rules.model import Unit
from tests.counters.bench import Bench, gcra, hits_of, sliding, wait_us_of
from tests.support.clock import SECOND, Clock
from tests.support.stores import Store


async def test_a_hit_leaves_a_sliding_window_a_period_after_it_came(bench: Bench) -> None:
    limit = sliding(3)
    for _ in range(3):
        assert await bench.take(("a", limit)) == 1
        bench.clock.sleep(10 * SECOND)
    assert (await bench.taken(("a", limit))).levels == (LogUsage(3, 50 * SECOND, 30 * SECOND),)
    bench.clock.sleep(30 * SECOND - 1)
    assert await bench.take(("a", limit), calls=9) == 0
    bench.clock.sleep(1)
    assert await bench.take(("a", limit), calls=9) == 1
    bench.clock.sleep(10 * SECOND)
    assert await bench.take(("a", limit), calls=9) == 1


async def test_a_sliding_window_waits_for_this_cost(bench: Bench) -> None:
    limit = sliding(10)
    for hits in (5, 3, 2):
        await bench.take(("a", limit, hits))
        bench.clock.sleep(SECOND)
    waits = [wait_us_of((await bench.taken(("a", limit, cost))).levels[0]) for cost in (1, 5, 6, 8, 9, 10, 11)]
    assert waits == [57 * SECOND] * 2 + [58 * SECOND] * 2 + [59 * SECOND] * 2 + [60 * SECOND]


async def test_a_sliding_window_never_admits_more_in_any_window(bench: Bench) -> None:
    limit = sliding(7, Unit.SECOND)
    admitted: list[int] = []
    for step in range(400):
        bench.clock.sleep(7_919 * (step % 13))
        admitted += [bench.clock()] * await bench.take(("a", limit), calls=2)
    assert len(admitted) > 100
    assert all(later - earlier >= SECOND for earlier, later in zip(admitted, admitted[7:], strict=False))


async def test_a_sliding_window_of_many_requests_counts_in_thousandths_of_it(bench: Bench) -> None:
    limit = sliding(100_000, Unit.SECOND)
    bench.clock.sleep(1)
    for _ in range(100):
        assert await bench.take(("a", limit), calls=1000) == 1000
        bench.clock.sleep(9_000)
    assert await bench.take(("a", limit), calls=10) == 0
    bench.clock.sleep(100_998)  # the first hits came at 1 µs, and are held until the end of their millisecond
    assert await bench.take(("a", limit), calls=10) == 0, "never too early"
    bench.clock.sleep(1)
    assert await bench.take(("a", limit), calls=9999) == 1000, "and at most a thousandth too late"


async def test_a_long_log_is_trimmed(bench: Bench) -> None:
    limit = sliding(1000, Unit.SECOND)
    for _ in range(3000):
        bench.clock.sleep(1000)
        assert await bench.take(("a", limit)) == 1
    assert await bench.take(("a", limit)) == 0
    bench.clock.sleep(500 * 1000)
    assert await bench.take(("a", limit), calls=9999) == 500


async def test_hits_that_left_the_window_leave_the_log(any_store: Store) -> None:
    """At most as many of them are kept as there are in the window."""
    clock, name = Clock(), secrets.token_bytes(8)
    counters = RedisCounters(any_store.url, 10, clock)
    group = Group(CounterSet((name,), (LimitCheck(sliding(100, Unit.SECOND), 1),)), 1)
    sizes = []
    async with Redis.from_url(any_store.url) as client:
        for _ in range(1000):
            clock.sleep(10_000)
            assert (await counters.take([group]))[0].admitted == 1
            sizes.append(await client.strlen(name))
    await counters.aclose()
    assert min(sizes[100:]) >= 41 + 100 * 16
    assert max(sizes) <= 41 + 2 * 100 * 16


async def test_hits_at_one_instant_are_one_entry_of_the_log(any_store: Store) -> None:
    clock, name = Clock(), secrets.token_bytes(8)
    counters = RedisCounters(any_store.url, 10, clock)
    group = Group(CounterSet((name,), (LimitCheck(sliding(100_000, Unit.SECOND), 1),)), 1)
    sizes = []
    clock.sleep(1)
    async with Redis.from_url(any_store.url) as client:
        for pause_us in (0, 999, 1, 0):  # such a limit counts in thousandths of its second
            clock.sleep(pause_us)
            await counters.take([group])
            sizes.append(await client.strlen(name))
    await counters.aclose()
    assert [(size - 41) // 16 for size in sizes] == [1, 1, 2, 2]


async def test_hits_that_left_the_window_leave_the_memory() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    group = Group(CounterSet((b"a",), (LimitCheck(sliding(100, Unit.SECOND), 1),)), 1)

    async def held_after(hits: int) -> int:
        for _ in range(hits):
            clock.sleep(10_000)
            assert (await counters.take([group]))[0].admitted == 1
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await held_after(300)
        assert await held_after(2000) - before < 10_000  # two integers and two references a hit would be 160,000
    finally:
        tracemalloc.stop()


async def test_the_newest_hits_of_a_sliding_window_are_given_back_first(bench: Bench) -> None:
    limit = sliding(10)
    await bench.take(("a", limit, 4))
    bench.clock.sleep(30 * SECOND)
    await bench.take(("a", limit, 6))
    await bench.take(("a", limit, -7))
    bench.clock.sleep(30 * SECOND)
    assert hits_of((await bench.taken(("a", limit, 0))).levels[0], limit) == 0, (
        "the three that were left are out of the window"
    )


async def test_a_sliding_window_of_which_all_hits_were_given_back_takes_no_memory() -> None:
    counters = MemoryCounters(Clock())
    check = LimitCheck(sliding(10), 4), LimitCheck(sliding(10), -4)
    await counters.take([Group(CounterSet((b"a",), (each,)), 1) for each in check])
    assert len(counters) == 0


async def test_the_hits_that_are_left_when_others_are_given_back_keep_their_end(bench: Bench) -> None:
    limit = sliding(10)
    assert await bench.take(("a", limit), calls=3) == 3
    bench.clock.sleep(10 * SECOND)
    assert await bench.take(("a", limit), calls=2) == 2
    await bench.take(("a", limit, -2))
    assert (await bench.taken(("a", limit, 0))).levels == (LogUsage(3, 50 * SECOND),)


async def test_a_clock_that_is_set_back_a_little_changes_no_hits_end(bench: Bench) -> None:
    limit = sliding(10)
    assert await bench.take(("a", limit), calls=10) == 10
    bench.clock.sleep(-3 * SECOND)
    assert (await bench.taken(("a", limit))).levels == (LogUsage(10, 63 * SECOND, 63 * SECOND),)
    bench.clock.sleep(63 * SECOND - 1)
    assert await bench.take(("a", limit)) == 0
    bench.clock.sleep(1)
    assert await bench.take(("a", limit), calls=99) == 10


async def test_a_sliding_window_with_room_for_what_another_limit_denies_has_no_wait(bench: Bench) -> None:
    limit = sliding(12)
    await bench.take(("a", limit, 2))
    taken = await bench.taken(("a", limit, 5), ("b", gcra(5), 5), calls=3)
    assert (taken.admitted, taken.levels[0]) == (1, LogUsage(2, 60 * SECOND)), "of three, two fit and one is counted"
