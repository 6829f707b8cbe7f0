"""The levels that the store reported last, for when it is away.

They are kept as numbers in one piece of memory, written anew in place: to keep the objects of each decision alive would
cost more than all else that a decision does, since their memory could not be used again for the next one.
"""

import struct
from collections.abc import Sequence

from extauth.limiter.algorithms import AnyAlgorithm, State
from extauth.limiter.counters import CounterSet, Group, Return, TakeResult

COUNTER_BYTES = 250  # about what a counter takes, with its places in the dicts
_RECORD = struct.Struct(
    "<qqqq"
)  # the level's first two numbers, the hits taken since, and when, in µs of the store's clock


_FIRST = 256  # counters for which there is room at first


class _Generation:
    """The records of some counters, each in the terms of a limit; their places are `base` and up.

    The piece of memory grows as counters come: with few callers it is not to hold 2 MB for those that it may get.
    """

    __slots__ = ("algorithms", "base", "records", "slots")

    def __init__(self, base: int) -> None:
        self.base = base
        self.slots: dict[bytes, int] = {}
        self.algorithms: list[AnyAlgorithm] = []
        self.records = bytearray(_FIRST * _RECORD.size)

    def place(self, name: bytes, algorithm: AnyAlgorithm) -> int:
        slot = self.slots.get(name)
        if slot is None or self.algorithms[slot] is not algorithm:
            slot = self.slots[name] = len(self.algorithms)
            self.algorithms.append(algorithm)
            if len(self.algorithms) * _RECORD.size > len(self.records):
                self.records += bytes(len(self.records) // 4)  # in place: whoever holds them writes into the same
        return self.base + slot * _RECORD.size


class ReportedLevels:
    """Remembers about `counters` counters, and as many older ones.

    What is at most a sixteenth of a limit is not remembered, so that callers far below their limits cost nothing. The
    places of a CounterSet's counters are noted in its `reported`: one number where that says all, since each object
    that is touched for a decision costs time.
    """

    def __init__(self, counters: int) -> None:
        self._most = max(counters, 1)
        self._new = self._old = _Generation(0)

    def remember(self, groups: Sequence[Group], takens: Sequence[TakeResult], now_us: int) -> None:
        """Note what the store reported."""
        write = _RECORD.pack_into
        base, records = self._new.base, self._new.records
        places: int | None
        several: tuple[int, ...] | None
        for group, taken in zip(groups, takens, strict=True):
            take, calls = group
            admitted, levels, _ = taken
            if len(levels) == 1:
                (level,), (check,) = levels, take.checks
                hits = (calls if check.limit.count_denied else admitted) * check.cost
                algorithm = check.algorithm
                if level[0] <= algorithm.slight_level and hits <= algorithm.slight_hits:
                    continue
                places = take.reported
                if places is None or places < base:
                    places = self._place(take)[0]
                    base, records = self._new.base, self._new.records
                write(records, places - base, level[0], level[1], hits, now_us)
            else:
                several = take.reported
                if several is None or several[0] < base:
                    several = self._place(take)
                    base, records = self._new.base, self._new.records
                for place, check, level in zip(several, take.checks, levels, strict=True):
                    write(records, place - base, level[0], level[1], check.hits(level, calls, admitted), now_us)

    def take_back(self, returns: Sequence[Return]) -> None:
        """Note that the store took hits back that it had reported before."""
        for name, algorithm, hits, at_us in returns:
            generation = self._new if name in self._new.slots else self._old
            slot = generation.slots.get(name)
            if slot is not None and generation.algorithms[slot] is algorithm:
                at = slot * _RECORD.size
                first, second, taken, noted_us = _RECORD.unpack_from(generation.records, at)
                if noted_us >= at_us:  # else they are not in what is noted
                    _RECORD.pack_into(generation.records, at, first, second, taken - hits, noted_us)

    def state(self, name: bytes, algorithm: AnyAlgorithm, now_us: int) -> State | None:
        """The counter as the store has it, as far as is known: in the terms of the limit, and drained until now."""
        generation = self._new if name in self._new.slots else self._old
        slot = generation.slots.get(name)
        if slot is None:
            return None
        own = generation.algorithms[slot]
        first, second, hits, at_us = _RECORD.unpack_from(generation.records, slot * _RECORD.size)
        level = own.after(own.read(first, second), hits)
        state: State | None = own.seed(own.later(level, max(now_us - at_us, 0)), own, now_us)
        if state is None or algorithm.in_terms(state, now_us):
            return state
        return algorithm.convert(state, now_us)

    def _place(self, take: CounterSet) -> tuple[int, ...]:
        """Find places for its counters; where one has several limits, the last of them holds in the end."""
        names, checks, new = take.names, take.checks, self._new
        if len(new.algorithms) + len(names) > self._most:
            self._old = new
            new = self._new = _Generation(new.base + len(new.records))
        places = tuple([new.place(name, check.algorithm) for name, check in zip(names, checks, strict=True)])
        take.reported = places[0] if len(places) == 1 else places
        return places
