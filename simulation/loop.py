"""An event loop whose time is simulated: it jumps from one timer to the next."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

TURN_NS: Final = 10_000
"""What each turn of the loop takes: time passes while tasks run, as it does in a real process."""
START_S: Final = 1000.0

_T = TypeVar("_T")


class VirtualTime:
    """Takes the place of the loop's selector, in which a real loop waits: here waiting moves the clock on."""

    def __init__(self) -> None:
        self.now_ns = int(START_S * 1e9)

    def select(self, timeout: float | None) -> list[Any]:
        """Wait; there are no sockets. Raises RuntimeError where nothing could ever end the wait."""
        if timeout is None:
            raise RuntimeError("every task waits, and no timer is set")
        self.now_ns += round(timeout * 1e9) + TURN_NS
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The same tasks and timers give the same run, whatever the machine does."""

    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._selector = VirtualTime()
        self._arrivals: list[asyncio.TimerHandle] = []
        self.errors: list[str] = []
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        """Simulated seconds."""
        return self._selector.now_ns / 1e9

    def time_us(self) -> int:
        """Simulated microseconds."""
        return self._selector.now_ns // 1000

    def arrive_at(self, when: float, arrive: Callable[..., None], *what: object) -> None:
        """Call at an instant what the network brings: no timer of those that wait for it."""
        self._arrivals.append(self.call_at(when, arrive, *what))

    def timers(self) -> int:
        """The number of timers that are set."""
        arrivals = set(map(id, self._arrivals))
        return sum(not timer.cancelled() and id(timer) not in arrivals for timer in self._scheduled)

    def _process_events(self, _events: Iterable[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread wakes it."""

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")


def run_virtually(work: Coroutine[Any, Any, _T]) -> _T:
    """Run in a loop of its own, in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def run_now(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    raise RuntimeError("it waits")
