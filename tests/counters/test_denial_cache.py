"""The local cache of sure denials."""

import math
from collections.abc import Sequence
from fractions import Fraction

import pytest

from extauth.counters.denial_cache import ENTRY_BYTES, DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import Group, LimitCheck, Source, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import MINUTE, NOON, SECOND, Clock
from tests.support.takes import Want, take

GCRA = Limit(10, Unit.MINUTE, Algorithm.GCRA, count_denied=False)
WINDOW = Limit(10, Unit.MINUTE, Algorithm.FIXED_WINDOW, count_denied=False)
COUNTING = Limit(10, Unit.MINUTE, Algorithm.FIXED_WINDOW, count_denied=True)


class Asked(MemoryCounters):
    """Counters that note how often they are asked, and take `delay_us` to answer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.groups = 0
        self.delay_us = 0

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        self.groups += len(groups)
        taken = await super().take(groups)
        self.clock.sleep(self.delay_us)
        return taken


class Bench:
    def __init__(self, bound_s: float = 1) -> None:
        self.clock = Clock()
        self.asked = Asked(self.clock)
        self.repeated = 0
        self.cache = DenialCache(self.asked, bound_s, self.clock)

    async def take(self, *counters: Want, calls: int = 1) -> TakeResult:
        (taken,) = await self.cache.take([Group(take(*counters), calls)])
        if taken.source is Source.DENIAL_CACHE:
            self.repeated += calls
        return taken

    async def checks(self, *counters: Want, calls: int = 1) -> tuple[int, int]:
        """(how many calls were admitted, how many groups reached the store)"""
        before = self.asked.groups
        taken = await self.take(*counters, calls=calls)
        return taken.admitted, self.asked.groups - before


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("limit", [GCRA, WINDOW])
async def test_a_full_counter_is_denied_from_memory_for_as_long_as_that_is_sure(bench: Bench, limit: Limit) -> None:
    a = (b"a", limit, 1)
    assert await bench.checks(a, calls=9) == (9, 1)
    assert await bench.checks(a) == (1, 1), "nothing was denied yet"
    assert await bench.checks(a) == (0, 1)
    assert await bench.checks(a, calls=3) == (0, 0)
    bench.clock.sleep(SECOND)
    assert await bench.checks(a) == (0, 0)
    assert bench.repeated == 4
    bench.clock.sleep(1)
    assert await bench.checks(a) == (0, 1), "past the bound it asks again"


async def test_it_ends_before_the_counter_admits_again(bench: Bench) -> None:
    fast = (b"a", Limit(100, Unit.SECOND, Algorithm.GCRA, count_denied=False), 1)
    assert await bench.checks(fast, calls=101) == (100, 1)
    bench.clock.sleep(9_900)
    assert await bench.checks(fast) == (0, 0)
    bench.clock.sleep(100)
    assert await bench.checks(fast) == (1, 1)


async def test_a_denial_ends_in_time_where_the_stores_clock_runs_faster_than_this_ones(bench: Bench) -> None:
    """By a thousandth, which is what is allowed for."""
    local, rate = Clock(), Fraction(1001, 1000)
    began = local()
    asked = Asked(Clock())
    cache = DenialCache(asked, 1, clock_us=local)
    group = Group(take((b"a", Limit(100, Unit.MINUTE, Algorithm.GCRA, count_denied=False), 1)), 1)
    for _ in range(101):
        await cache.take([group])
    local.sleep(599_399)  # 599,998.4 µs of the store's clock, on which the next hit fits 600,000 µs after the first
    asked.clock.sleep(int((local() - began) * rate))
    assert [taken.admitted for taken in await cache.take([group])] == [0]
    assert asked.groups == 101, "until then it is sure"
    local.sleep(2)
    asked.clock.now = NOON + math.ceil((local() - began) * rate)
    assert [taken.admitted for taken in await cache.take([group])] == [1]


async def test_a_window_that_ends_ends_the_denial(bench: Bench) -> None:
    a = (b"a", WINDOW, 1)
    bench.clock.sleep(MINUTE - SECOND // 2)
    assert await bench.checks(a, calls=11) == (10, 1)
    bench.clock.sleep(SECOND // 2 - 1_000)
    assert await bench.checks(a) == (0, 0)
    bench.clock.sleep(1_000)
    assert await bench.checks(a) == (1, 1)


async def test_it_decides_by_cost(bench: Bench) -> None:
    assert await bench.checks((b"a", GCRA, 8)) == (1, 1)
    assert await bench.checks((b"a", GCRA, 5)) == (0, 1)
    assert await bench.checks((b"a", GCRA, 5)) == (0, 0)
    assert await bench.checks((b"a", GCRA, 2)) == (1, 1)


async def test_what_is_told_is_what_the_store_would_tell(bench: Bench) -> None:
    a = (b"a", GCRA, 1)
    await bench.take(a, calls=11)
    bench.clock.sleep(SECOND // 3)
    taken = await bench.take(a)
    assert bench.repeated == 1
    assert LimitCheck(*a[1:]).outcome(taken.levels[0], 0, 0) == (
        True,
        0,
        60 * SECOND - SECOND // 3,
        6 * SECOND - SECOND // 3,
    )


async def test_while_the_store_took_its_time_nobody_is_told_to_come_too_early(bench: Bench) -> None:
    a = (b"a", GCRA, 1)
    bench.asked.delay_us = SECOND // 10
    await bench.take(a, calls=11)
    taken = await bench.take(a)
    assert LimitCheck(*a[1:]).outcome(taken.levels[0], 0, 0).retry_after_us == 6 * SECOND


async def test_all_counters_of_a_take_must_be_known(bench: Bench) -> None:
    a, b, c = ((name, GCRA, 1) for name in (b"a", b"b", b"c"))
    assert await bench.checks(a, calls=11) == (10, 1)
    assert await bench.checks(a, b) == (0, 1)
    assert await bench.checks(a, b) == (0, 0)
    assert await bench.checks(b) == (1, 1), "known, and not full"
    assert await bench.checks(a, c) == (0, 1)


async def test_in_a_batch_only_the_others_reach_the_store(bench: Bench) -> None:
    a, b = ((name, GCRA, 1) for name in (b"a", b"b"))
    await bench.take(a, calls=11)
    before = bench.asked.groups
    groups = [Group(take(b), 2), Group(take(a), 3), Group(take(b), 9)]
    takes = [(taken.admitted, taken.source) for taken in await bench.cache.take(groups)]
    assert takes == [(2, Source.STORE), (0, Source.DENIAL_CACHE), (8, Source.STORE)]
    assert bench.asked.groups - before == 2


async def test_denials_that_count_always_ask(bench: Bench) -> None:
    a, b = (b"a", COUNTING, 1), (b"b", GCRA, 1)
    await bench.take(a, calls=11)
    assert await bench.checks(a) == (0, 1)
    await bench.take(b, calls=11)
    assert await bench.checks(a, b) == (0, 1)
    assert await bench.checks(a, b) == (0, 1)


async def test_it_forgets_when_told_and_knows_no_other_limit(bench: Bench) -> None:
    a = (b"a", GCRA, 1)
    await bench.take(a, calls=11)
    raised = (b"a", Limit(20, Unit.MINUTE, Algorithm.GCRA, count_denied=False), 1)
    assert await bench.checks(raised) == (1, 1)
    assert await bench.checks(a) == (0, 1), "more was taken since"
    assert await bench.checks(a) == (0, 0)
    bench.cache.forget()
    assert await bench.checks(a) == (0, 1)


async def test_a_counter_that_is_held_to_two_limits_is_asked_about_and_known_by_the_last(bench: Bench) -> None:
    few = Limit(3, Unit.MINUTE, Algorithm.GCRA, count_denied=False)
    a, few_of_a = (b"a", GCRA, 1), (b"a", few, 1)
    assert await bench.checks(a, few_of_a, calls=4) == (3, 1)
    assert await bench.checks(a, few_of_a) == (0, 1)
    assert await bench.checks(few_of_a) == (0, 0)
    assert await bench.checks(a, calls=9) == (7, 1)
    assert await bench.checks(few_of_a) == (0, 1)
    assert await bench.checks(a, few_of_a) == (0, 1)


async def test_its_memory_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth.counters.denial_cache.MAX_BYTES", 10 * (ENTRY_BYTES + 2))
    closed = Limit(0, Unit.HOUR, Algorithm.GCRA, count_denied=False)
    counters = [(b"%d" % i, closed, 1) for i in range(30)]
    for counter in counters:
        await bench.take(counter)
    assert [await bench.checks(counter) for counter in counters[-15:]] == [(0, 0)] * 15
    assert await bench.checks(counters[0]) == (0, 1)


async def test_what_others_took_since_is_told(bench: Bench) -> None:
    a, b = (b"a", GCRA, 1), (b"b", GCRA, 1)
    await bench.take(a, calls=10)
    assert await bench.checks(a, b) == (0, 1)
    await bench.take(b, calls=10)
    taken = await bench.take(a, b)
    assert [
        LimitCheck(*check[1:]).outcome(level, 0, 0).over for check, level in zip((a, b), taken.levels, strict=True)
    ] == [
        True,
        True,
    ]
