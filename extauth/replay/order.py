"""Puts what logs hold into the order in which requests began: Envoy writes a line when its request ends."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

MAX_HELD = 100_000
"""Requests that are held to be put in order, of all logs together."""

Timed: TypeAlias = tuple[Any, ...]
T = TypeVar("T", bound=Timed)
_TIME = itemgetter(0)


def in_order(logs: Sequence[Iterable[T]]) -> Iterator[T]:
    """The items of all logs by their first part, the time; equal ones in the order of their log.

    An item that is further from its place than half of the items that are held comes late.
    """
    held = max(MAX_HELD // max(len(logs), 1), 2)
    sorted_logs = [_sorted(log, held) for log in logs]
    return sorted_logs[0] if len(sorted_logs) == 1 else heapq.merge(*sorted_logs, key=_TIME)


def _sorted(items: Iterable[T], held: int) -> Iterator[T]:
    pending: list[T] = []
    for item in items:
        pending.append(item)
        if len(pending) >= held:
            pending.sort(key=_TIME)
            yield from pending[: held // 2]
            del pending[: held // 2]
    pending.sort(key=_TIME)
    yield from pending
