"""Log lines for the changes of a state that may change often."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

MOST = 4
WITHIN_S = 60.0

Later = Callable[[float, Callable[[], None]], Any]


def _on_the_loop(delay_s: float, do: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, do)


class StateLog:
    """Calls `write` with each new state, at most MOST times WITHIN_S seconds; begins with False.

    Of more changes than that, it writes later what the state is by then, if that is not what it wrote last. `clock`
    gives seconds; `later` is called with a number of them and what is to be done then.
    """

    def __init__(
        self, write: Callable[[bool], None], *, clock: Callable[[], float] = monotonic, later: Later = _on_the_loop
    ) -> None:
        self._write = write
        self._clock = clock
        self._later = later
        self._state = self._written = False
        self._lines: deque[float] = deque(maxlen=MOST)
        self._waiting = False

    def changed(self, *, state: bool) -> None:
        """Note the state."""
        self._state = state
        if self._waiting or state is self._written:
            return
        wait_s = self._lines[0] + WITHIN_S - self._clock() if len(self._lines) == MOST else 0.0
        if wait_s <= 0:
            self._catch_up()
        else:
            self._waiting = True
            self._later(wait_s, self._catch_up)

    def _catch_up(self) -> None:
        self._waiting = False
        if self._state is not self._written:
            self._lines.append(self._clock())
            self._written = self._state
            self._write(self._state)
