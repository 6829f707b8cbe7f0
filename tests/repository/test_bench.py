"""The arithmetic of `./dev bench --beside`."""

import os
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.beside import CONFIDENCE, FEWEST_ROUNDS, SLOWER, CpuClock, imports_from, interval


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


@pytest.mark.parametrize(("count", "ends"), [(7, "values 1 and 7 of 7"), (9, "values 2 and 8 of 9")])
def test_an_interval_names_the_order_statistics_at_its_ends(count: int, ends: str) -> None:
    assert interval([1.0] * count).ends == ends


def test_the_fewest_rounds_are_the_first_that_are_sure_enough() -> None:
    assert interval([1.0] * FEWEST_ROUNDS).confidence >= CONFIDENCE
    assert interval([1.0] * (FEWEST_ROUNDS - 1)).confidence < CONFIDENCE


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--rounds", "0", "hot"], "--rounds: at least 6"),
        (["--rounds", "5", "hot"], "--rounds: at least 6"),
        (["hot", "envoy"], "--beside does not compare: envoy"),
        (["loading"], "--beside does not compare: loading"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--beside", "no-such-commit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_commit_whose_packages_are_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "extauth").mkdir()
    for name, text in (("__init__", ""), ("cli", ""), ("app", "import a_package_that_nobody_has")):
        (tmp_path / f"extauth/{name}.py").write_text(text)
    with pytest.raises(SystemExit, match="No module named 'a_package_that_nobody_has'; install what that commit needs"):
        imports_from(tmp_path)
