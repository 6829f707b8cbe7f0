"""How long an xDS server is left alone, so that one that is broken costs this process little."""

from collections.abc import Callable
from random import random
from time import monotonic
from typing import Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 30.0
"""A stream that was open for so long ended by chance, so that the next one is not made to wait."""
READ_PAUSE_S: Final = 0.005
"""After each response, since a server may send one after the other without being answered."""
MOST_BUILT: Final = 10
"""Responses that are built one right after the other; then it is one each BUILD_EVERY_S."""
BUILD_EVERY_S: Final = 1.0


class StreamPauses:
    """The pauses between streams: from `first_s` each is twice as long as the one before, up to `longest_s`.

    A steady stream has them begin anew. So does a response, unless streams that brought one ended soon before.
    """

    def __init__(
        self, first_s: float = FIRST_PAUSE_S, longest_s: float = LONGEST_PAUSE_S, chance: Callable[[], float] = random
    ) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._chance = chance
        self._doublings = -1
        self._brief = 0  # streams that brought a response and ended soon, since there was a steady one

    def after_stream(self, open_s: float, *, heard: bool) -> float:
        """The seconds until the next attempt, after a stream was open for `open_s`; with `heard` it had a response."""
        if open_s >= STEADY_S:
            self._doublings = self._brief = 0
        elif heard:
            self._doublings, self._brief = self._brief, self._brief + 1
        else:
            self._doublings += 1
        pause_s = min(self._first_s * 2.0 ** min(self._doublings, 20), self._longest_s)
        return pause_s * (0.5 + self._chance() / 2)


class BuildPauses:
    """The pauses before responses are built: none until they change much more often than rules do."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._ahead = 0.0  # responses that were built before it was their time
        self._noted_s = clock()

    def before_build(self) -> float:
        """The seconds until another response may be built, which is counted as built then."""
        now_s = self._clock()
        self._ahead = max(self._ahead - (now_s - self._noted_s) / BUILD_EVERY_S, 0.0) + 1
        self._noted_s = now_s
        return max(self._ahead - MOST_BUILT, 0.0) * BUILD_EVERY_S
