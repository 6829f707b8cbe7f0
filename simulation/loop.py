"""An event loop whose time is simulated: it jumps from one timer to the next."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

TURN_NS: Final = 10_000
"""What each turn of the loop takes: time passes while tasks run, as it does in a real process."""
START_S: Final = 1000.0

process: ContextVar[str] = ContextVar("process", default="")
"""The name of the simulated process to which a task or timer belongs; of the world, it is empty."""

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
    """The same tasks and timers give the same run, whatever the machine does.

    A process can be stopped: what belongs to it waits until it goes on.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._selector = VirtualTime()
        self._arrivals: list[asyncio.TimerHandle] = []
        self._held: dict[str, list[asyncio.Handle]] = {}  # of the processes that are stopped
        self.errors: list[str] = []
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        """Simulated seconds."""
        return self._selector.now_ns / 1e9

    def time_us(self) -> int:
        """Simulated microseconds."""
        return self._selector.now_ns // 1000

    def arrive_at(self, when: float, arrive: Callable[..., None], *what: object, to: Context) -> None:
        """Call at an instant what the network brings to a process: no timer of those that wait for it."""
        self._arrivals.append(self.call_at(when, arrive, *what, context=to))

    def stop_process(self, name: str) -> None:
        """Have nothing of this process run."""
        self._held.setdefault(name, [])

    def resume_process(self, name: str, *, timers_first: bool) -> None:
        """Go on with it. Timers that are due run before what came in is read, or after it: loops differ."""
        now, arrivals = self.time(), set(map(id, self._arrivals))
        for handle in self._held.pop(name, []):
            if not isinstance(handle, asyncio.TimerHandle):
                self._ready.append(handle)
            elif not handle.cancelled():
                if id(handle) in arrivals and handle.when() <= now:
                    _postpone(handle, now, timers_first=timers_first)
                _push(self._scheduled, handle)

    def timers(self) -> int:
        """The number of timers that are set."""
        arrivals = set(map(id, self._arrivals))
        return sum(not timer.cancelled() and id(timer) not in arrivals for timer in self._scheduled)

    def _run_once(self) -> None:
        for name in self._held:
            self._hold(name)
        super()._run_once()  # type: ignore[misc]

    def _hold(self, name: str) -> None:
        """Set aside what belongs to a process that is stopped."""
        own = [handle for handle in (*self._ready, *self._scheduled) if _process_of(handle) == name]
        if own:
            self._held[name] += own
            gone = set(map(id, own))
            others = [handle for handle in self._ready if id(handle) not in gone]
            self._ready.clear()
            self._ready += others
            self._scheduled[:] = [timer for timer in self._scheduled if id(timer) not in gone]
            heapq.heapify(self._scheduled)

    def _process_events(self, _events: Iterable[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread wakes it."""

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")


# Of asyncio's handles private parts are needed: it has no way to stop a part of what a loop runs.


def _process_of(handle: Any) -> str:  # noqa: ANN401
    name: str = handle._context.get(process)  # noqa: SLF001
    return name


def _push(timers: list[asyncio.TimerHandle], timer: Any) -> None:  # noqa: ANN401
    timer._scheduled = True  # noqa: SLF001
    heapq.heappush(timers, timer)


def _postpone(timer: Any, now: float, *, timers_first: bool) -> None:  # noqa: ANN401
    """Have what is due run in the turn after the next, or else before all timers; the earliest stays the earliest."""
    age_s = now - timer.when()
    timer._when = now + (2 * TURN_NS - age_s) / 1e9 if timers_first else -age_s  # noqa: SLF001


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
