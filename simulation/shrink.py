"""Makes a failing schedule short enough to be read: fewer faults, and fewer calls, while it fails in the same way."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from simulation.run import Schedule, run

_T = TypeVar("_T")


def shrink(schedule: Schedule) -> Schedule:
    """A schedule that fails with fewer faults and calls, as far as dropping them one by one finds one."""
    kind = _kind(run(schedule).wrong[0])

    def fails(shorter: Schedule) -> bool:
        return kind in map(_kind, run(shorter).wrong)

    faults = _fewer(schedule.faults, lambda kept: fails(replace(schedule, faults=kept)), at_once=1)
    schedule = replace(schedule, faults=faults)
    calls = schedule.calls
    at_once = len(calls) // 2
    while at_once:
        calls = _fewer(calls, lambda kept: fails(replace(schedule, calls=kept)), at_once=at_once)
        at_once //= 4
    return replace(schedule, calls=calls)


def _kind(wrong: str) -> str:
    """What is wrong, without the numbers."""
    return re.sub(r"[0-9.]+", "", wrong)


def _fewer(items: Sequence[_T], fails: Callable[[Sequence[_T]], bool], at_once: int) -> Sequence[_T]:
    at = 0
    while at < len(items):
        fewer = [*items[:at], *items[at + at_once :]]
        if fails(fewer):
            items = fewer
        else:
            at += at_once
    return items
