"""What an algorithm's object says of one limit."""

import pytest

from extauth.limiter.algorithms import AnyAlgorithm, Outcome, algorithm_of
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import MINUTE, NOON, SECOND


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("requests", [1, 7, 10, 1_000_003])
def test_the_first_number_at_which_hits_are_used_is_that_of_a_counter_that_has_taken_them(
    algorithm: Algorithm, requests: int
) -> None:
    """Whoever compares a level with it, as the metrics do, must not miss the level that is just reached."""
    counts = algorithm_of(Limit(requests, Unit.MINUTE, algorithm, count_denied=False))
    for hits in range(min(requests, 20) + 1):
        number = counts.first_number(hits)
        assert number == counts.after(counts.level(None, NOON), hits)[0]


def counting(algorithm: Algorithm, requests: int = 10) -> AnyAlgorithm:
    return algorithm_of(Limit(requests, Unit.MINUTE, algorithm, count_denied=False))


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_level_without_further_hits_stays_as_it_is(algorithm: Algorithm) -> None:
    counts = counting(algorithm)
    level = counts.level(counts.take(None, 3, NOON), NOON + 10 * SECOND)
    assert counts.after(level, 0) == level


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("elapsed_us", [MINUTE, MINUTE + 1, 2 * MINUTE])
def test_a_level_is_empty_once_a_window_has_passed(algorithm: Algorithm, elapsed_us: int) -> None:
    counts = counting(algorithm)
    later = counts.later(counts.level(counts.take(None, 10, NOON), NOON), elapsed_us)
    assert counts.used_hits(later) == 0
    assert counts.calls_that_fit(1, later) == 10


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_share_begins_with_its_part_of_what_is_used_and_ends_with_the_whole(algorithm: Algorithm) -> None:
    whole, half = counting(algorithm), counting(algorithm, 5)
    level = whole.level(whole.take(None, 4, NOON), NOON)
    state = half.seed(level, whole, NOON)
    assert half.used_hits(half.level(state, NOON)) == 2
    assert half.used_hits(half.level(state, NOON + MINUTE - 1)) == (0 if algorithm is Algorithm.GCRA else 2)
    assert half.used_hits(half.level(state, NOON + MINUTE)) == 0


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("requests", [0, 7, 10])
@pytest.mark.parametrize("elapsed_us", [0, 1, MINUTE - 1])
def test_a_counter_that_begins_where_one_of_its_own_limit_is_has_the_same_level(
    algorithm: Algorithm, requests: int, elapsed_us: int
) -> None:
    counts, now = counting(algorithm, requests), NOON + elapsed_us
    level = counts.level(counts.take(None, 3, NOON), now)
    assert counts.level(counts.seed(level, counts, now), now) == level


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("requests", [7, 10])
def test_all_that_a_new_counter_has_taken_is_owed(algorithm: Algorithm, requests: int) -> None:
    counts = counting(algorithm, requests)
    state = counts.take(None, 3, NOON)
    settled = counts.settle(None, counts.owed(None, state, NOON), NOON)
    assert counts.level(settled, NOON) == counts.level(state, NOON)


def test_each_hit_in_a_log_is_owed_and_settled_at_its_own_instant() -> None:
    counts = counting(Algorithm.SLIDING_WINDOW)
    state = counts.take(counts.take(None, 2, NOON), 3, NOON + 20 * SECOND)
    owed = counts.owed(None, state, NOON + 30 * SECOND)
    assert owed == (NOON, 2, NOON + 20 * SECOND, 3)
    assert counts.owed(None, state, NOON + MINUTE) == owed[2:]
    settled = counts.settle(None, owed, NOON + 30 * SECOND)
    used = [counts.used_hits(counts.level(settled, NOON + at)) for at in (MINUTE - 1, MINUTE, MINUTE + 20 * SECOND)]
    assert used == [5, 3, 0]


@pytest.mark.parametrize(
    ("algorithm", "owed"),
    [(Algorithm.SLIDING_WINDOW, (NOON, 2)), (Algorithm.FIXED_WINDOW, (NOON + MINUTE, 2)), (Algorithm.GCRA, ())],
)
def test_settling_what_can_no_longer_matter_makes_no_counter(algorithm: Algorithm, owed: tuple[int, ...]) -> None:
    assert counting(algorithm).settle(None, owed, NOON + MINUTE) is None


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_level_after_hits_is_that_of_the_state_that_has_taken_them(algorithm: Algorithm) -> None:
    counts = counting(algorithm)
    assert counts.after(counts.level(None, NOON), 3) == counts.level(counts.take(None, 3, NOON), NOON)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_state_without_hits_that_were_given_back_is_still_in_the_limits_terms(algorithm: Algorithm) -> None:
    counts = counting(algorithm)
    state = counts.give_back(counts.take(None, 3, NOON), 1, NOON, NOON)
    assert counts.in_terms(state, NOON)
    assert counts.level(state, NOON) == counts.level(counts.take(None, 2, NOON), NOON)


@pytest.mark.parametrize(
    ("algorithm", "reset_us"),
    [(Algorithm.FIXED_WINDOW, MINUTE), (Algorithm.GCRA, 0), (Algorithm.SLIDING_WINDOW, 0)],
)
def test_where_all_hits_were_given_back_nothing_is_waited_for_but_a_windows_end(
    algorithm: Algorithm, reset_us: int
) -> None:
    counts = counting(algorithm)
    level = counts.level(counts.take(None, 3, NOON), NOON)
    assert counts.outcome(-3, level, 1, over=False) == Outcome(False, 10, reset_us)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("unit", [Unit.SECOND, Unit.MINUTE, Unit.YEAR])
def test_an_admitted_call_is_told_by_the_countdown_what_its_outcome_says(algorithm: Algorithm, unit: Unit) -> None:
    counts = algorithm_of(Limit(10, unit, algorithm, count_denied=False))
    for used in (0, 3, 9):
        level = counts.level(counts.take(None, used, NOON) if used else None, NOON)
        remaining, reset, ticks_per_hit, ticks_per_s = counts.countdown(level)
        outcome = counts.outcome(1, level, 1, over=False)
        assert remaining - 1 == outcome.remaining
        assert -(-(reset + ticks_per_hit) // ticks_per_s) == -(-outcome.reset_us // 1_000_000)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("cost", [1, 2])
def test_as_many_calls_stay_up_to_a_number_of_hits_as_have_room_below_it(algorithm: Algorithm, cost: int) -> None:
    counts = counting(algorithm)
    level = counts.level(counts.take(None, 3, NOON), NOON)
    assert [counts.calls_up_to(hits, cost, level) for hits in (2, 3, 4, 10)] == [0, 0, 1 // cost, 7 // cost]
