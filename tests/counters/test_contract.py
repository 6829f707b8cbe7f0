"""What every implementation of limiter.counters.Counters does."""

from dataclasses import replace

import pytest

from extauth.limiter.algorithms import MAX_BACKLOG_US, MAX_HITS, Backlog, WindowUsage
from extauth.limiter.counters import LimitCheck, Mode
from extauth.rules.model import Algorithm, Limit, Unit
from tests.counters.bench import EXACT, Bench, gcra, hits_of, sliding, window
from tests.support.clock import HOUR, MINUTE, SECOND


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
        (gcra(7, Unit.YEAR, count_denied=True), MAX_BACKLOG_US),
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


async def test_what_gcra_holds_is_rounded_up_to_whole_hits(bench: Bench) -> None:
    limit = gcra(7)
    assert await bench.take(("a", limit), calls=3) == 3
    bench.clock.sleep(17_142_857)  # a seventh of a microsecond less than two hits take
    (level,) = (await bench.taken(("a", limit, 0))).levels
    assert hits_of(level, limit) == 2


async def test_groups_of_several_counters_take_from_their_own(bench: Bench) -> None:
    limit = gcra(10)
    groups = [bench.group(("a", limit), ("b", limit)), bench.group(("c", limit), ("d", limit), calls=2)]
    assert [taken.admitted for taken in await bench.counters.take(groups)] == [1, 2]
    assert [await bench.take((name, limit), calls=99) for name in "abcd"] == [9, 9, 8, 8]


async def test_no_group_is_no_call(bench: Bench) -> None:
    assert await bench.counters.take([]) == []


async def test_hits_that_are_given_back_leave_the_others_their_time(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.take(("a", sliding(10)), calls=3) == 3
        bench.clock.sleep(10 * SECOND)
    await bench.take(("a", sliding(10), -2))
    bench.clock.sleep(31 * SECOND)  # the first three have left the window
    assert await bench.take(("a", sliding(10)), calls=99) == 6


@pytest.mark.parametrize("limit", [gcra(10), window(10), window(10, count_denied=False)], ids=str)
async def test_a_clock_that_steps_back_admits_no_more_and_locks_nobody_out(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit), calls=10) == 10
    bench.clock.sleep(-HOUR)
    assert await bench.take(("a", limit), calls=99) == 0
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", limit), calls=99) == 10


@pytest.mark.parametrize("limit", [gcra(10), window(10), window(2**32 - 1)], ids=str)
async def test_hits_beyond_what_any_limit_has_are_denied(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, 2**53 - 1), calls=1000) == 0


async def test_a_store_that_counts_says_so_when_it_is_probed(bench: Bench) -> None:
    await bench.counters.probe()


@pytest.mark.parametrize("limit", EXACT, ids=str)
async def test_every_algorithm_admits_exactly_the_limit(bench: Bench, limit: Limit) -> None:
    assert [await bench.take(("a", limit), calls=4) for _ in range(4)] == [4, 4, 2, 0]


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
async def test_the_last_hit_can_be_given_back(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit)) == 1
    await bench.take(("a", limit, -1))
    assert await bench.take(("a", limit), calls=99) == 10


@pytest.mark.parametrize("limit", EXACT, ids=str)
async def test_a_give_back_makes_room_and_never_more_than_there_was(bench: Bench, limit: Limit) -> None:
    assert await bench.take(("a", limit, -3)) == 1
    assert await bench.take(("a", limit), calls=10) == 10
    assert await bench.take(("a", limit, -1), calls=4) == 4
    assert await bench.take(("a", limit), calls=4) == 4
    assert await bench.take(("a", limit, -99)) == 1
    assert await bench.take(("a", limit), calls=10) == 10
    assert await bench.take(("a", limit)) == 0


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
