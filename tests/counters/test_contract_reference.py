"""Two ways of envoyproxy/ratelimit: `stops` and `lenient` of LimitCheck, in every implementation of Counters."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import LimitCheck, Mode
from extauth.rules.model import Unit
from tests.counters.bench import Bench, Want, window
from tests.support.clock import Clock

ENFORCED, SHADOW, REPORT_ONLY = Mode.ENFORCED, Mode.SHADOW, Mode.REPORT_ONLY


async def used(bench: Bench, name: str, requests: int) -> int:
    """The hits that a counter holds."""
    taken = await bench.taken((name, window(requests, Unit.DAY), 0, SHADOW))
    return LimitCheck(window(requests), 1).algorithm.used_hits(taken.levels[0])


def stops(name: str, requests: int, cost: int = 1, mode: Mode = ENFORCED) -> Want:
    return name, window(requests, Unit.DAY), cost, mode, True


async def test_hits_count_where_their_own_limit_denies_them(bench: Bench) -> None:
    for cost, admitted, holds in ((9, 1, 9), (2, 0, 11), (1, 0, 12)):
        assert await bench.take(stops("a", 10, cost)) == admitted
        assert await used(bench, "a", 10) == holds


@pytest.mark.parametrize("batches", [[5], [1, 4], [2, 3], [1] * 5])
async def test_hits_do_not_count_where_another_limit_denies_them(bench: Bench, batches: Sequence[int]) -> None:
    admitted = [await bench.take(stops("a", 2), stops("b", 4), calls=calls) for calls in batches]
    assert sum(admitted) == 2
    assert await used(bench, "a", 2) == 5
    assert await used(bench, "b", 4) == 2


@pytest.mark.parametrize("mode", [SHADOW, REPORT_ONLY])
@pytest.mark.parametrize("batches", [[5], [1, 4], [3, 2]])
async def test_a_limit_that_denies_nothing_goes_on_counting(bench: Bench, mode: Mode, batches: Sequence[int]) -> None:
    for calls in batches:
        assert await bench.take(stops("a", 2, mode=mode), stops("b", 9), calls=calls) == calls
    assert (await used(bench, "a", 2), await used(bench, "b", 9)) == (5, 5)


async def test_a_lenient_peek_fits_until_the_limit_is_exceeded(bench: Bench) -> None:
    limit = window(2, Unit.DAY)
    peek: Want = ("a", limit, 0, ENFORCED, False, True)
    admitted = []
    for _ in range(4):
        admitted += [await bench.take(peek), await bench.take(("a", limit, 1))]
    assert admitted == [1, 1, 1, 1, 1, 0, 0, 0]
    assert await used(bench, "a", 2) == 4


async def test_a_lenient_peek_at_a_limit_of_nothing_fits(bench: Bench) -> None:
    limit = window(0, Unit.DAY)
    assert await bench.take(("a", limit, 0, ENFORCED, False, True)) == 1
    assert await bench.take(("a", limit, 1)) == 0
    assert await bench.take(("a", limit, 0, ENFORCED, False, True)) == 0


def one_by_one(costs: Sequence[tuple[int, int, Mode]], calls: int) -> tuple[int, list[int]]:
    """The same in plain steps: how many calls are admitted, and what each counter then holds."""
    held, admitted = [0] * len(costs), 0
    for _ in range(calls):
        over = [held[i] + cost > requests for i, (requests, cost, _) in enumerate(costs)]
        denied = any(each and mode is ENFORCED for each, (_, _, mode) in zip(over, costs, strict=True))
        admitted += not denied
        for i, (_, cost, _) in enumerate(costs):
            held[i] += cost if over[i] or not denied else 0
    return admitted, held


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 4), st.sampled_from([ENFORCED, SHADOW])), max_size=3, min_size=1
    ),
    st.lists(st.integers(1, 5), max_size=4),
)
async def test_groups_count_as_their_calls_one_by_one(costs: list[tuple[int, int, Mode]], batches: list[int]) -> None:
    bench = Bench(MemoryCounters(Clock()), Clock(), "")
    wants = [stops(str(i), requests, cost, mode) for i, (requests, cost, mode) in enumerate(costs)]
    admitted = sum([await bench.take(*wants, calls=calls) for calls in batches])
    held = [await used(bench, str(i), requests) for i, (requests, _, _) in enumerate(costs)]
    assert (admitted, held) == one_by_one(costs, sum(batches))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.just(ENFORCED)), max_size=3, min_size=1),
    st.integers(1, 9),
)
async def test_outcomes_are_those_of_the_calls_one_by_one(costs: list[tuple[int, int, Mode]], calls: int) -> None:
    bench = Bench(MemoryCounters(Clock()), Clock(), "")
    wants = [stops(str(i), requests, cost, mode) for i, (requests, cost, mode) in enumerate(costs)]
    group = bench.group(*wants, calls=calls)
    (taken,) = await bench.counters.take([group])
    held = [0] * len(costs)
    for call in range(calls):
        over = [held[i] + cost > requests for i, (requests, cost, _) in enumerate(costs)]
        for i, (requests, cost, _) in enumerate(costs):
            held[i] += cost if over[i] or not any(over) else 0
            outcome = group.take.checks[i].outcome(taken.levels[i], call, taken.admitted)
            assert (outcome.over, outcome.remaining) == (over[i], 0 if over[i] else requests - held[i])
