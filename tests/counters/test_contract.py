"""What every implementation of limiter.counters.Counters does."""

import secrets
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest
from redis.asyncio import Redis

from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.algorithms import MAX_BACKLOG_US, MAX_HITS, Backlog, Level, LogUsage, WindowUsage
from extauth.limiter.counters import Counters, CounterSet, Group, LimitCheck, Mode, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import HOUR, MINUTE, SECOND, Clock
from tests.support.stores import SERVERS, Store

Want = tuple[str, Limit] | tuple[str, Limit, int] | tuple[str, Limit, int, Mode]


def gcra(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = False) -> Limit:
    return Limit(requests, unit, Algorithm.GCRA, count_denied=count_denied)


def window(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = True) -> Limit:
    return Limit(requests, unit, Algorithm.FIXED_WINDOW, count_denied=count_denied)


def sliding(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = False) -> Limit:
    return Limit(requests, unit, Algorithm.SLIDING_WINDOW, count_denied=count_denied)


@dataclass
class Bench:
    """The counters under test, their clock, and a prefix that no other test uses."""

    counters: Counters
    clock: Clock
    prefix: str

    def group(self, *wants: Want, calls: int = 1) -> Group:
        checks = tuple(LimitCheck(*want[1:]) if len(want) > 2 else LimitCheck(want[1], 1) for want in wants)
        return Group(CounterSet(tuple(f"{self.prefix}{want[0]}".encode() for want in wants), checks), calls)

    async def taken(self, *wants: Want, calls: int = 1) -> TakeResult:
        (taken,) = await self.counters.take([self.group(*wants, calls=calls)])
        return taken

    async def take(self, *wants: Want, calls: int = 1) -> int:
        """How many of so many equal calls, each for all of `wants`, are admitted."""
        return (await self.taken(*wants, calls=calls)).admitted


@pytest.fixture(params=["memory", "denials", *SERVERS])
async def bench(request: pytest.FixtureRequest, shared_store: Callable[[str], Store]) -> AsyncIterator[Bench]:
    clock = Clock()
    if request.param == "memory":
        yield Bench(MemoryCounters(clock), clock, "")
    elif request.param == "denials":
        yield Bench(DenialCache(MemoryCounters(clock), 1, clock_us=clock), clock, "")
    else:
        counters = RedisCounters(shared_store(request.param).url, 10, clock)
        yield Bench(counters, clock, secrets.token_hex(8))
        await counters.aclose()


@pytest.mark.parametrize("limit", [gcra(10), window(10), window(10, count_denied=False)], ids=str)
async def test_admits_exactly_the_limit(bench: Bench, limit: Limit) -> None:
    assert [await bench.take(("a", limit)) for _ in range(12)] == [1] * 10 + [0, 0]


@pytest.mark.parametrize("limit", [gcra(10), window(10)], ids=str)
async def test_equal_calls_are_counted_together(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit), calls=7) == 7
    assert await bench.take(("a", limit), calls=7) == 3


@pytest.mark.parametrize("limit", [gcra(10), window(10)], ids=str)
async def test_a_cost_counts_that_many_hits(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, 4), calls=3) == 2


async def test_what_costs_more_than_is_left_leaves_it_to_others(bench: Bench) -> None:
    for limit in (gcra(10), window(10, count_denied=False)):
        name = limit.algorithm
        assert await bench.take((name, limit, 7)) == 1
        assert await bench.take((name, limit, 4)) == 0
        assert await bench.take((name, limit, 3)) == 1


async def test_gcra_admits_one_each_emission_interval(bench: Bench) -> None:
    limit = gcra(10)
    assert await bench.take(("a", limit), calls=99) == 10
    bench.clock.sleep(6 * SECOND - 1)
    assert await bench.take(("a", limit)) == 0
    bench.clock.sleep(1)
    assert await bench.take(("a", limit), calls=2) == 1


async def test_gcra_is_exact_where_the_interval_is_no_whole_microsecond(bench: Bench) -> None:
    limit = gcra(7)  # one each 8,571,428 4/7 µs
    assert await bench.take(("a", limit), calls=99) == 7
    admitted = 0
    for _ in range(7):
        bench.clock.sleep(8_571_428)
        admitted += await bench.take(("a", limit), calls=99)
    assert admitted == 6
    bench.clock.sleep(4)
    assert await bench.take(("a", limit), calls=99) == 1


async def test_gcra_is_exact_above_one_request_a_microsecond(bench: Bench) -> None:
    limit = gcra(3_000_000, Unit.SECOND)
    assert await bench.take(("a", limit), calls=9_000_000) == 3_000_000
    for _ in range(5):
        bench.clock.sleep(1)
        assert await bench.take(("a", limit), calls=99) == 3


async def test_a_fixed_window_starts_anew_on_the_unit(bench: Bench) -> None:
    limit = window(3)
    bench.clock.sleep(59 * SECOND)
    assert await bench.take(("a", limit), calls=9) == 3
    bench.clock.sleep(SECOND - 1)
    assert await bench.take(("a", limit)) == 0
    bench.clock.sleep(1)
    assert await bench.take(("a", limit), calls=9) == 3


@pytest.mark.parametrize("limit", [gcra(0), window(0), gcra(0, count_denied=True)], ids=str)
async def test_a_limit_of_zero_admits_nothing(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit), calls=5) == 0
    bench.clock.sleep(10 * HOUR)
    assert await bench.take(("a", limit)) == 0


async def test_all_counters_must_admit(bench: Bench) -> None:
    assert await bench.take(("a", gcra(10)), ("b", gcra(3)), ("c", window(5, count_denied=False)), calls=9) == 3
    assert await bench.take(("a", gcra(10)), calls=99) == 7, "denied calls took nothing"
    assert await bench.take(("c", window(5, count_denied=False)), calls=99) == 2, "in no counter of theirs"


async def test_denied_hits_count_where_the_limit_says_so(bench: Bench) -> None:
    assert await bench.take(("full", gcra(0)), ("a", window(10)), ("b", gcra(10, count_denied=True)), calls=6) == 0
    assert await bench.take(("a", window(10)), calls=99) == 4
    assert await bench.take(("b", gcra(10, count_denied=True)), calls=99) == 4


async def test_counted_denials_run_into_debt(bench: Bench) -> None:
    limit = gcra(10, count_denied=True)
    assert await bench.take(("a", limit), calls=30) == 10
    bench.clock.sleep(2 * MINUTE)
    assert await bench.take(("a", limit)) == 0, "of 30 hits 20 are drained and 10 still fill it"
    bench.clock.sleep(12 * SECOND)
    assert await bench.take(("a", limit), calls=9) == 1, "the denied one was counted as well"


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        (gcra(1, Unit.YEAR, count_denied=True), MAX_BACKLOG_US),
        (window(1, Unit.YEAR), MAX_HITS),
        (sliding(1, Unit.YEAR, count_denied=True), MAX_HITS),
    ],
    ids=str,
)
async def test_debt_is_bounded(bench: Bench, limit: Limit, most: int) -> None:
    """Below 2^53, so that a double holds it exactly."""
    for _ in range(3):
        assert await bench.take(("a", limit, 2**53 - 1), calls=1000) == 0
        (level,) = (await bench.taken(("a", limit, 0))).levels
        assert level[0] == most


async def test_levels_say_what_was_held_before(bench: Bench) -> None:
    assert (await bench.taken(("a", gcra(7)), ("b", window(5)), calls=3)).levels == (
        Backlog(0, 0),
        WindowUsage(0, MINUTE),
    )
    bench.clock.sleep(SECOND)
    levels = (await bench.taken(("a", gcra(7)), ("b", window(5)))).levels
    assert levels == (Backlog(3 * 8_571_428 - 1_000_000 + 1, 5), WindowUsage(3, 59 * SECOND))  # 3 x 4/7 = 1 5/7


async def test_groups_are_taken_one_after_the_other_at_one_instant(bench: Bench) -> None:
    limit = gcra(10)
    groups = [bench.group(("a", limit), calls=6), bench.group(("a", limit), ("b", limit), calls=6)]
    first, second = await bench.counters.take(groups)
    assert (first.admitted, second.admitted) == (6, 4)
    assert second.levels == (Backlog(36 * SECOND, 0), Backlog(0, 0))


async def test_no_group_is_no_call(bench: Bench) -> None:
    assert await bench.counters.take([]) == []


UP_DOWN = [
    (gcra(10), gcra(20), 10),
    (gcra(20), gcra(10), 0),
    (gcra(10), gcra(100, Unit.HOUR), 90),
    (gcra(100, Unit.HOUR), gcra(110), 10),
    (gcra(7), gcra(70), 63),
    (window(10), window(20), 10),
    (window(20), window(10), 0),
    (window(10), window(100, Unit.HOUR), 90),
    (window(100, Unit.HOUR), window(110), 10),
    (gcra(10), window(30), 20),
    (window(10), gcra(30), 20),
    (gcra(0), gcra(5), 5),
]


@pytest.mark.parametrize(("old", "new", "left"), UP_DOWN, ids=str)
async def test_what_is_used_stays_used_when_the_limit_changes(bench: Bench, old: Limit, new: Limit, left: int) -> None:
    await bench.take(("a", old), calls=old.requests_per_unit or 1)
    assert await bench.take(("a", new), calls=999) == left


async def test_a_window_carried_into_a_shorter_one_ends_with_it(bench: Bench) -> None:
    assert await bench.take(("a", window(100, Unit.HOUR)), calls=100) == 100
    assert await bench.take(("a", window(10))) == 0
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", window(10)), calls=99) == 10


async def test_gcra_drains_at_the_old_rate_until_the_limit_changes(bench: Bench) -> None:
    await bench.take(("a", gcra(10)), calls=10)
    bench.clock.sleep(30 * SECOND)
    assert await bench.take(("a", gcra(20)), calls=99) == 15


async def test_gcra_drains_at_the_new_rate_from_the_first_denial_on(bench: Bench) -> None:
    assert await bench.take(("a", gcra(7)), calls=7) == 7
    assert await bench.take(("a", gcra(11), 11)) == 0
    bench.clock.sleep(39 * SECOND)  # 11 a minute make room for 7 in 38.2 s, 7 a minute in 60
    assert await bench.take(("a", gcra(11), 11)) == 1


async def test_hits_that_are_given_back_leave_the_others_their_time(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.take(("a", sliding(10)), calls=3) == 3
        bench.clock.sleep(10 * SECOND)
    await bench.take(("a", sliding(10), -2))
    bench.clock.sleep(31 * SECOND)  # the first three have left the window
    assert await bench.take(("a", sliding(10)), calls=99) == 6


@pytest.mark.parametrize("new", [gcra(10), sliding(10)], ids=str)
async def test_a_window_that_has_ended_counts_for_no_other_algorithm(bench: Bench, new: Limit) -> None:
    assert await bench.take(("a", window(10)), calls=10) == 10
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", new), calls=99) == 10


@pytest.mark.parametrize("limit", [gcra(10), window(10), window(10, count_denied=False)], ids=str)
async def test_a_clock_that_steps_back_admits_no_more_and_locks_nobody_out(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit), calls=10) == 10
    bench.clock.sleep(-HOUR)
    assert await bench.take(("a", limit), calls=99) == 0
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", limit), calls=99) == 10


CHANGES = [
    (window(10, Unit.DAY, count_denied=False), gcra(10), 6 * SECOND),
    (window(10, Unit.DAY, count_denied=False), window(5, count_denied=False), MINUTE),
    (gcra(10, Unit.DAY), gcra(10), 6 * SECOND),
    (gcra(10, Unit.DAY), window(5, count_denied=False), MINUTE),
]


@pytest.mark.parametrize(("old", "new", "wait_us"), CHANGES, ids=str)
async def test_a_counter_drains_as_the_new_limit_says_once_it_was_asked(
    bench: Bench, old: Limit, new: Limit, wait_us: int
) -> None:
    assert await bench.take(("a", old), calls=10) == 10
    assert await bench.take(("a", new)) == 0
    bench.clock.sleep(wait_us - 1)
    assert await bench.take(("a", new)) == 0
    bench.clock.sleep(1)
    assert await bench.take(("a", new)) == 1


FALLING = [
    (gcra(10), gcra(3)),
    (gcra(10, count_denied=True), gcra(3, count_denied=True)),
    (window(10), window(3)),
    (window(10, count_denied=False), window(3, count_denied=False)),
]


@pytest.mark.parametrize(("many", "few"), FALLING, ids=str)
async def test_a_counter_that_is_held_to_two_limits_takes_its_hits_once(bench: Bench, many: Limit, few: Limit) -> None:
    both = (("a", many), ("a", few))
    assert await bench.take(*both, ("b", gcra(9)), calls=2) == 2
    assert await bench.take(*both) == 1
    assert [_hits(level, limit) for level, (_, limit) in zip((await bench.taken(*both)).levels, both, strict=True)] == [
        3,
        3,
    ]
    assert await bench.take(("a", many), calls=99) == (6 if few.count_denied else 7)
    assert await bench.take(*both) == 0
    bench.clock.sleep(HOUR)
    assert await bench.take(*both, calls=99) == 3


def _hits(level: Level, limit: Limit) -> int:
    return LimitCheck(limit, 1).algorithm.used_hits(level)


def _wait_us(level: Level) -> int:
    assert isinstance(level, LogUsage)
    return level.wait_us


async def test_a_counter_that_is_held_to_two_limits_drains_as_the_last_has_it(bench: Bench) -> None:
    both = (("a", gcra(60)), ("a", gcra(3)))
    assert await bench.take(*both, calls=9) == 3
    for _ in range(3):
        bench.clock.sleep(20 * SECOND - 1)
        assert await bench.take(*both) == 0
        bench.clock.sleep(1)
        assert await bench.take(*both, calls=9) == 1


@pytest.mark.parametrize("limit", [gcra(10), window(10), window(2**32 - 1)], ids=str)
async def test_hits_beyond_what_any_limit_has_are_denied(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, 2**53 - 1), calls=1000) == 0


async def test_a_store_that_counts_says_so_when_it_is_probed(bench: Bench) -> None:
    await bench.counters.probe()


EXACT = [gcra(10), window(10), window(10, count_denied=False), sliding(10), sliding(10, count_denied=True)]


@pytest.mark.parametrize("limit", EXACT, ids=str)
async def test_every_algorithm_admits_exactly_the_limit(bench: Bench, limit: Limit) -> None:
    assert [await bench.take(("a", limit), calls=4) for _ in range(4)] == [4, 4, 2, 0]


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
    waits = [_wait_us((await bench.taken(("a", limit, cost))).levels[0]) for cost in (1, 5, 6, 8, 9, 10, 11)]
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


@pytest.mark.parametrize("limit", EXACT, ids=str)
async def test_a_peek_takes_nothing_and_is_over_when_a_hit_would_be(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, 0), calls=5) == 5
    assert await bench.take(("a", limit), calls=9) == 9
    assert await bench.take(("a", limit, 0), calls=5) == 5
    assert await bench.take(("a", limit)) == 1
    assert await bench.take(("a", limit, 0), calls=5) == 0


@pytest.mark.parametrize("limit", [*EXACT, gcra(10, count_denied=True)], ids=str)
async def test_a_denied_peek_waits_until_a_hit_fits(bench: Bench, limit: Limit) -> None:
    peek = LimitCheck(limit, 0)

    async def wait_us() -> int | None:
        taken = await bench.taken(("a", limit, 0))
        assert not taken.admitted
        return peek.outcome(taken.levels[0], 0, 0).retry_after_us

    assert await bench.take(("a", limit), calls=10) == 10
    bench.clock.sleep(SECOND)
    wait = 5 * SECOND if limit.algorithm is Algorithm.GCRA else 59 * SECOND
    assert [await wait_us() for _ in range(3)] == [wait] * 3
    bench.clock.sleep(wait - 1)
    assert await wait_us() == 1
    bench.clock.sleep(1)
    assert await bench.take(("a", limit, 0)) == 1
    assert await bench.take(("a", limit)) == 1


async def test_a_peek_at_a_limit_of_zero_never_fits(bench: Bench) -> None:
    for limit in (gcra(0), window(0), sliding(0)):
        taken = await bench.taken((limit.algorithm, limit, 0))
        assert LimitCheck(limit, 0).outcome(taken.levels[0], 0, taken.admitted).retry_after_us is None
        assert not taken.admitted


@pytest.mark.parametrize("limit", EXACT, ids=str)
async def test_a_give_back_makes_room_and_never_more_than_there_was(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, -3)) == 1
    assert await bench.take(("a", limit), calls=10) == 10
    assert await bench.take(("a", limit, -1), calls=4) == 4
    assert await bench.take(("a", limit), calls=4) == 4
    assert await bench.take(("a", limit, -99)) == 1
    assert await bench.take(("a", limit), calls=10) == 10
    assert await bench.take(("a", limit)) == 0


async def test_the_newest_hits_of_a_sliding_window_are_given_back_first(bench: Bench) -> None:
    limit = sliding(10)
    await bench.take(("a", limit, 4))
    bench.clock.sleep(30 * SECOND)
    await bench.take(("a", limit, 6))
    await bench.take(("a", limit, -7))
    bench.clock.sleep(30 * SECOND)
    assert _hits((await bench.taken(("a", limit, 0))).levels[0], limit) == 0, (
        "the three that were left are out of the window"
    )


SHADOWED = [(gcra(3), 3), (window(3), 6), (window(3, count_denied=False), 3), (sliding(3), 3)]


@pytest.mark.parametrize(("limit", "held"), SHADOWED, ids=str)
async def test_what_is_not_enforced_denies_nothing_and_takes_what_fits(bench: Bench, limit: Limit, held: int) -> None:
    for mode in (Mode.SHADOW, Mode.REPORT_ONLY):
        name = mode.name
        assert await bench.take((name, limit, 1, mode), ("b" + name, gcra(100)), calls=6) == 6
        assert await bench.take((name, replace(limit, requests_per_unit=10)), calls=99) == 10 - held
        assert await bench.take(("b" + name, gcra(100)), calls=999) == 94


async def test_a_denied_request_takes_nothing_of_what_is_not_enforced_either(bench: Bench) -> None:
    closed = ("closed", gcra(0))
    assert await bench.take(closed, ("s", gcra(5), 1, Mode.SHADOW), ("q", gcra(5), 1, Mode.QUOTA), calls=3) == 0
    assert await bench.take(("s", gcra(5)), calls=9) == 5
    assert await bench.take(("q", gcra(5)), calls=9) == 5


async def test_quotas_deny_when_all_are_used_up(bench: Bench) -> None:
    small, large = ("small", gcra(2), 1, Mode.QUOTA), ("large", gcra(5), 1, Mode.QUOTA)
    assert await bench.take(small, large, calls=9) == 5
    assert await bench.take(("small", gcra(2))) == 0, "it took what fitted"
    assert await bench.take(("large", gcra(5))) == 0


@pytest.mark.parametrize("numbers", [(5, 2, 3), (2, 5, 3), (2, 3, 5)], ids=str)
async def test_the_largest_of_three_quotas_admits(bench: Bench, numbers: tuple[int, ...]) -> None:
    quotas = [(str(place), gcra(number), 1, Mode.QUOTA) for place, number in enumerate(numbers)]
    assert await bench.take(*quotas, calls=9) == 5


async def test_several_limits_of_one_quota_are_one(bench: Bench) -> None:
    both = [("a", gcra(2), 1, Mode.QUOTA), ("b", gcra(5), 1, Mode.SAME_QUOTA)]
    assert await bench.take(*both, ("c", gcra(3), 1, Mode.QUOTA), calls=9) == 3
    assert await bench.take(("d", gcra(9)), *both, calls=9) == 0, "of a and b, a is used up"


async def test_enforced_limits_and_quotas_together(bench: Bench) -> None:
    assert await bench.take(("q", gcra(9), 1, Mode.QUOTA), ("e", gcra(4)), calls=9) == 4
    assert await bench.take(("q", gcra(9)), calls=99) == 5


SLIDING_UP_DOWN = [
    (sliding(10), sliding(20), 10),
    (sliding(20), sliding(10), 0),
    (sliding(10), gcra(30), 20),
    (gcra(10), sliding(30), 20),
    (sliding(10), window(30), 20),
    (window(10), sliding(30), 20),
    (sliding(10), sliding(100, Unit.HOUR), 90),
    (sliding(20_000), sliding(30_000), 10_000),
    (sliding(5000), sliding(20_000), 15_000),
]


@pytest.mark.parametrize(("old", "new", "left"), SLIDING_UP_DOWN, ids=str)
async def test_what_a_sliding_window_holds_is_carried_over(bench: Bench, old: Limit, new: Limit, left: int) -> None:
    await bench.take(("a", old), calls=old.requests_per_unit)
    assert await bench.take(("a", new), calls=99_999) == left


async def test_a_sliding_window_that_is_held_to_two_limits_takes_its_hits_once_and_waits_for_each(bench: Bench) -> None:
    both = (("a", sliding(10)), ("a", sliding(3)))
    for _ in range(3):
        assert await bench.take(*both) == 1
        bench.clock.sleep(10 * SECOND)
    assert (await bench.taken(*both)).levels == (LogUsage(3, 50 * SECOND, 0), LogUsage(3, 50 * SECOND, 30 * SECOND))
    assert await bench.take(("a", sliding(10)), calls=99) == 7
    ten_and_nine = (await bench.taken(("a", sliding(10)), ("a", sliding(9)))).levels
    assert [_wait_us(level) for level in ten_and_nine] == [30 * SECOND, 40 * SECOND], "until one is out, until two are"


async def test_a_sliding_window_that_is_held_to_two_limits_is_read_before_it_is_written(bench: Bench) -> None:
    """A log of which more than half is out of the window is trimmed when it is written, which moves its entries."""
    for _ in range(140):
        assert await bench.take(("a", sliding(200, Unit.SECOND))) == 1
        bench.clock.sleep(1000)
    bench.clock.sleep(SECOND - 20_000)
    taken = await bench.taken(("a", sliding(30, Unit.SECOND), 2), ("a", sliding(29, Unit.SECOND), 2), calls=9)
    assert taken == TakeResult(5, (LogUsage(19, 19_000, 1_000), LogUsage(19, 19_000, 2_000)))


async def test_a_clock_set_far_back_restarts_a_sliding_window_with_what_was_used(bench: Bench) -> None:
    limit = sliding(10)
    assert await bench.take(("a", limit), calls=10) == 10
    bench.clock.sleep(-HOUR)
    assert await bench.take(("a", limit), calls=9) == 0
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", limit), calls=99) == 10
