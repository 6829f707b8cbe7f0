"""Batches apart for each part of the store, so that calls wait for no other part than their own."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Final

from extauth.limiter.build import Decider
from extauth.limiter.facts import Observer
from extauth.transport.batching import Batcher
from extauth.transport.waiting import Calls

MOST_PARTS: Final = 64

PartOf = Callable[[Sequence[bytes]], Hashable]
"""What stands for the part of the store that has counters with these names."""


class PartedBatcher(Batcher):
    """A Batcher that has one for each part of the store, by `part_of`; the other arguments are as Batcher's.

    `max_waiting` bounds the calls that wait for a batch of any part.
    """

    def __init__(self, decider: Decider, observers: Sequence[Observer], *, part_of: PartOf, **options: Any) -> None:  # noqa: ANN401
        super().__init__(decider, observers, **options)
        self._part_of = part_of
        self._parts: dict[Hashable, Batcher] = {}
        self._make = partial(Batcher, decider, observers, deadlines=self.deadlines, **options)

    def room(self) -> int:
        """As Batcher."""
        waiting = 0
        for part in self._parts.values():
            waiting += part.waiting
        if waiting >= self._max_waiting:
            for part in self._parts.values():
                part.sweep()
            waiting = sum(part.waiting for part in self._parts.values())
        return self._max_waiting - waiting

    def submit(self, calls: Calls) -> None:
        """As Batcher; the calls are answered as their own parts of the store reply."""
        part_of = self._part_of
        by_part: dict[Hashable, list[int]] = {}
        for i, plan in enumerate(calls.plans):
            by_part.setdefault(part_of(plan.names) if plan.names else None, []).append(i)
        if len(by_part) <= 1:
            for part in by_part:
                self._batcher(part).submit(calls)
            return
        for part, indices in by_part.items():
            self._batcher(part).submit(calls.some(indices))

    def _batcher(self, part: Hashable) -> Batcher:
        batcher = self._parts.get(part)
        if batcher is None:
            if len(self._parts) >= MOST_PARTS:  # masters that are gone, most likely
                self._parts = {known: each for known, each in self._parts.items() if not each.idle}
            batcher = self._parts[part] = self._make()
        return batcher
