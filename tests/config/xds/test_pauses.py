"""How long an xDS server that is broken is left alone."""

import pytest

from extauth.config.sources.xds_pauses import BUILD_EVERY_S, MOST_BUILT, STEADY_S, BuildPauses, StreamPauses
from tests.support.clock import Seconds

BRIEF, REFUSED, STEADY = (0.1, True), (0.1, False), (STEADY_S, True)


@pytest.mark.parametrize(
    ("streams", "doublings"),
    [
        ([REFUSED] * 4, [0, 1, 2, 3]),
        ([BRIEF] * 4, [0, 1, 2, 3]),
        ([REFUSED] * 3 + [BRIEF], [0, 1, 2, 0]),
        ([BRIEF, REFUSED] * 3, [0, 1, 1, 2, 2, 3]),
        ([BRIEF, BRIEF, STEADY, BRIEF, BRIEF], [0, 1, 0, 0, 1]),
        ([REFUSED] * 100, [min(n, 6) for n in range(100)]),
    ],
    ids=["refused", "brief", "back again", "by turns", "steady between", "for long"],
)
def test_streams_that_end_soon_are_further_and_further_apart(
    streams: list[tuple[float, bool]], doublings: list[int]
) -> None:
    pauses = StreamPauses(1.0, 64.0, chance=lambda: 1.0)
    assert [pauses.after_stream(open_s, heard=heard) for open_s, heard in streams] == [2.0**n for n in doublings]


def test_pauses_are_shorter_by_up_to_a_half_by_chance() -> None:
    assert StreamPauses(1.0, 64.0, chance=lambda: 0.0).after_stream(0, heard=True) == 0.5


def test_a_few_responses_are_built_at_once_and_then_one_a_second() -> None:
    clock = Seconds()
    pauses = BuildPauses(clock)
    paused = []
    for _ in range(MOST_BUILT + 5):
        paused.append(pauses.before_build())
        clock.now += paused[-1]
    assert paused == [0] * MOST_BUILT + [BUILD_EVERY_S] * 5
    clock.now += MOST_BUILT * BUILD_EVERY_S
    assert [pauses.before_build() for _ in range(MOST_BUILT)] == [0] * MOST_BUILT
