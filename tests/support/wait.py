"""Waiting for a condition: polled until it holds, and given up after a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable

PATIENCE_S = 30


def until(
    holds: Callable[[], object], what: object = "it", *, within_s: float = PATIENCE_S, every_s: float = 0.005
) -> None:
    """Return once `holds()` is true. Fails after `within_s` seconds with `what`, or what `what()` returns then."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what() if callable(what) else what}"
        time.sleep(every_s)


async def until_async(
    holds: Callable[[], object | Awaitable[object]],
    what: object = "it",
    *,
    within_s: float = PATIENCE_S,
    every_s: float = 0.001,
) -> float:
    """The same in a running event loop, where `holds` may be a coroutine function; returns the seconds that it took."""
    began = time.monotonic()
    while True:
        held = holds()
        if await held if isawaitable(held) else held:
            return time.monotonic() - began
        waited = time.monotonic() - began
        assert waited < within_s, f"not within {within_s:g} s: {what() if callable(what) else what}"
        await asyncio.sleep(every_s)
