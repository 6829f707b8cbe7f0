"""The arithmetic of `./dev bench --beside`."""

import os
import time

import pytest

from bench.beside import SLOWER, CpuClock, interval


@pytest.mark.parametrize(
    ("ratios", "low", "middle", "high", "confidence"),
    [
        ([1.0], 1, 1, 1, 0.0),
        ([7, 1, 6, 2, 5, 3, 4], 1, 4, 7, 1 - 2 / 2**7),
        (list(range(1, 10)), 2, 5, 8, 1 - 20 / 2**9),
        (list(range(1, 21)), 6, 10.5, 15, 1 - 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20),
    ],
)
def test_the_interval_of_a_median(
    ratios: list[float], low: float, middle: float, high: float, confidence: float
) -> None:
    found = interval(ratios)
    assert (found.low, found.median, found.high) == (low, middle, high)
    assert found.confidence == pytest.approx(confidence)


def test_a_case_is_slower_only_if_the_whole_interval_is() -> None:
    assert interval([SLOWER + 0.01] * 7).slower
    assert not interval([SLOWER + 0.01] * 6 + [SLOWER]).slower


def test_cpu_is_counted_in_nanoseconds() -> None:
    clock = CpuClock(os.getpid())
    before, spent = clock.ns(), time.process_time_ns()
    while time.process_time_ns() < spent + 20_000_000:
        pass
    assert 15_000_000 < clock.ns() - before < 2_000_000_000
