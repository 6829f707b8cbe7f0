"""Looks at all of what happens while that is little, and at a sample where it is much."""

from collections.abc import Callable
from typing import Final

WORK_A_SECOND: Final = 10_000
SAMPLED: Final = 64


class Sampling:
    """Whether the batches of a second are looked at: all of them while there is `work_left`, then one in SAMPLED.

    Whoever looks takes from `work_left` what that costs, in tenths of a microsecond; the last batch may overdraw it.
    `draw` gives a random number from 0 to below 1.
    """

    __slots__ = ("_draw", "_examined", "_groups", "work_left")

    def __init__(self, draw: Callable[[], float]) -> None:
        self.work_left = WORK_A_SECOND
        self._draw = draw
        self._groups = [0, 0]  # of this window and the one before,
        self._examined = [0, 0]  # and those of them that were looked at

    def draw(self, groups: int) -> int:
        """How often a batch of this number of groups counts: 0 where it is not to be looked at."""
        self._groups[0] += groups
        weight = 1
        if self.work_left <= 0:
            if self._draw() * SAMPLED >= 1:
                return 0
            weight = SAMPLED
        self._examined[0] += groups
        return weight

    def begin_second(self) -> None:
        """Begin a new second."""
        self.work_left = WORK_A_SECOND

    def rotate(self) -> None:
        """Begin a new window."""
        self._groups = [0, self._groups[0]]
        self._examined = [0, self._examined[0]]

    @property
    def examined(self) -> float:
        """The part that was looked at."""
        groups = sum(self._groups)
        return sum(self._examined) / groups if groups else 1.0
