"""Waiting for a task in steps, so that a stop of this process does not count as waiting."""

import asyncio
import math
from typing import Any

_STEPS = 10
_SHORTEST_STEP_S = 0.002  # uvloop runs a timer of less than half a millisecond before it looks for I/O


def in_steps(duration_s: float) -> tuple[int, float]:
    """How many steps, at least two, of how many seconds.

    A timer that is due when this process goes on after a stop may run before what came in meanwhile is read, on asyncio
    as on uvloop. One that is set by then runs after. So no clock may end at its first step.
    """
    step_s = max(duration_s / _STEPS, _SHORTEST_STEP_S)
    return max(math.ceil(duration_s / step_s), 2), step_s


async def within(task: "asyncio.Task[Any]", duration_s: float) -> bool:
    """Wait until the task is done, for so long, in steps; returns whether it is."""
    steps, step_s = in_steps(duration_s)
    for _ in range(steps):
        await asyncio.wait((task,), timeout=step_s)
        if task.done():
            return True
    return False
