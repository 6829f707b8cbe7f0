"""Schedules of faults in simulated time, after each of which everything must hold that the simulation checks."""

from collections.abc import Callable

import pytest

from simulation.run import Schedule, run

AT_ONCE = 50


@pytest.mark.parametrize("first", range(0, 500, AT_ONCE))
def test_schedules(first: int) -> None:
    """`./dev simulate --seed SEED --schedules 1` prints what happened in one that fails."""
    wrong = {seed: result for seed in range(first, first + AT_ONCE) if (result := run(Schedule.of(seed)).wrong)}
    assert wrong == {}


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (133, "replies that take longer and longer set a replica's idea of the clock back over a window's end"),
        (4493, "a connection is refused after the first 32 of 66 equal calls were counted as a trial"),
        (5133, "a replica crashes twice, and is stopped while a probe is on its way"),
        (7694, "a replica hears only after a while that the store's clock was set forward"),
        (11319, "the replicas are stopped while a probe is on its way"),
        (20622, "the calls of a trial and those that were asked after it are admitted at two instants"),
    ],
)
def test_seeds_that_failed(seed: int, what: str) -> None:
    assert run(Schedule.of_server(seed)).wrong == [], what


@pytest.mark.parametrize(
    ("seed", "what"),
    [
        (23, "a fixed window is counted locally by the clock of another master that is away, too"),
        (41, "a bucket is counted so"),
        (81, "a sliding window is counted so"),
        (50243, "hits are given back to a bucket that drained before its clock was set back"),
        (50284, "a request that only reports looks at a bucket whose clock was set back"),
    ],
)
def test_seeds_of_clusters_that_failed(seed: int, what: str) -> None:
    assert run(Schedule.of_cluster(seed)).wrong == [], what


@pytest.mark.parametrize("of", [Schedule.of_server, Schedule.of_cluster])
def test_a_seed_gives_the_same_run_each_time(of: Callable[[int], Schedule]) -> None:
    records = [run(of(7), record=True).record for _ in range(2)]
    assert len(records[0]) > 100
    assert records[0] == records[1]
