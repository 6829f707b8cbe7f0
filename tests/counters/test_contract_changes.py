"""What every implementation of limiter.counters.Counters does where a limit changes, or a counter has several."""

import pytest

from extauth.limiter.algorithms import Backlog, LogUsage
from extauth.limiter.counters import TakeResult
from extauth.rules.model import Limit, Unit
from tests.counters.bench import Bench, gcra, hits_of, sliding, wait_us_of, window
from tests.support.clock import HOUR, MINUTE, SECOND

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


async def test_a_backlog_in_other_terms_is_rounded_up_by_less_than_a_microsecond(bench: Bench) -> None:
    assert await bench.take(("a", gcra(7))) == 1
    bench.clock.sleep(1)
    assert (await bench.taken(("a", gcra(10), 0))).levels == (Backlog(6 * SECOND, 0),), "5,999,999.3 µs of 10 a minute"


@pytest.mark.parametrize("new", [window(10), window(10, count_denied=False), sliding(10)], ids=str)
async def test_part_of_a_hit_is_one_where_gcra_becomes_another_algorithm(bench: Bench, new: Limit) -> None:
    assert await bench.take(("a", gcra(10)), calls=5) == 5
    bench.clock.sleep(3 * SECOND)  # which drains half a hit
    assert await bench.take(("a", new), calls=99) == 5


@pytest.mark.parametrize("new", [gcra(10), window(10), sliding(10)], ids=str)
@pytest.mark.parametrize("old", [gcra(10), window(10), sliding(10)], ids=str)
async def test_what_another_limit_counted_stays_when_more_is_taken(bench: Bench, old: Limit, new: Limit) -> None:
    assert await bench.take(("a", old), calls=5) == 5
    assert await bench.take(("a", new), calls=2) == 2
    assert await bench.take(("a", new), calls=99) == 3


@pytest.mark.parametrize("new", [gcra(10), sliding(10)], ids=str)
async def test_a_window_that_has_ended_counts_for_no_other_algorithm(bench: Bench, new: Limit) -> None:
    assert await bench.take(("a", window(10)), calls=10) == 10
    bench.clock.sleep(MINUTE)
    assert await bench.take(("a", new), calls=99) == 10


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
    assert [
        hits_of(level, limit) for level, (_, limit) in zip((await bench.taken(*both)).levels, both, strict=True)
    ] == [
        3,
        3,
    ]
    assert await bench.take(("a", many), calls=99) == (6 if few.count_denied else 7)
    assert await bench.take(*both) == 0
    bench.clock.sleep(HOUR)
    assert await bench.take(*both, calls=99) == 3


async def test_a_counter_that_is_held_to_two_limits_drains_as_the_last_has_it(bench: Bench) -> None:
    both = (("a", gcra(60)), ("a", gcra(3)))
    assert await bench.take(*both, calls=9) == 3
    for _ in range(3):
        bench.clock.sleep(20 * SECOND - 1)
        assert await bench.take(*both) == 0
        bench.clock.sleep(1)
        assert await bench.take(*both, calls=9) == 1


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
    assert [wait_us_of(level) for level in ten_and_nine] == [30 * SECOND, 40 * SECOND], (
        "until one is out, until two are"
    )


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
