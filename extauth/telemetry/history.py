"""Allowed and denied calls per second, by tier and by rule, for the last 15 minutes.

Once a second the counters of the metrics are read, less often where there are very many; a decision costs nothing more.
At most MAX_TIERS tiers and MAX_RULES rules have series, the others share `other`; a series that had no call for 15
minutes makes room for another one. A series takes 14 KB: all of them 3.7 MB at most.
"""

import asyncio
import json
from array import array
from collections.abc import Callable, Container, Hashable, Iterable, Iterator
from time import monotonic, thread_time, time
from typing import Final, Generic, NamedTuple, TypeVar

from extauth.telemetry.tables import OTHER

SECONDS: Final = 900
MAX_TIERS: Final = 50
MAX_RULES: Final = 200
READING_CPU: Final = 0.01
LONGEST_PAUSE_S: Final = 5
_SLOTS: Final = SECONDS + 1  # one more is being written

K = TypeVar("K", bound=Hashable)


class RuleKey(NamedTuple):
    """A rule as the metrics name it."""

    domain: str
    rule: str


class Change(NamedTuple):
    """Calls that came to the counts of a tier, by its name, or of a rule.

    Those of a rule are the calls that its limits were asked about, and `denied` those that one of these had no room
    for, unless it is in shadow mode. Several changes of one key add up.
    """

    key: str | RuleKey
    allowed: int
    denied: int


OTHER_RULES: Final = RuleKey("", OTHER)


class Series(NamedTuple):
    """Calls per second, one number a second."""

    allowed: "array[int]"
    denied: "array[int]"


class HistorySlice(NamedTuple):
    """The seconds numbered `first` to `last`; `last_at_s` is when the last of them ended, in seconds since the epoch.

    Tiers and rules without a call in these seconds are left out. `last` is what to give to `since` next time.
    """

    first: int
    last: int
    last_at_s: float
    tiers: dict[str, Series]
    rules: dict[RuleKey, Series]

    def json(self) -> Iterator[str]:
        """One JSON object, in pieces of one series each, which take well below a millisecond.

        `{"first": 1, "last": 2, "last_at_s": 1.5, "tiers": [{"tier": "free", "allowed": [3, 0], "denied": [0, 1]}],
        "rules": [{"domain": "d", "rule": "r", "allowed": …, "denied": …}]}`
        """
        yield f'{{"first": {self.first}, "last": {self.last}, "last_at_s": {self.last_at_s:.3f}, "tiers": ['
        for i, (tier, series) in enumerate(self.tiers.items()):
            yield (", " if i else "") + json.dumps({"tier": tier} | _lists(series))
        yield '], "rules": ['
        for i, (rule, series) in enumerate(self.rules.items()):
            yield (", " if i else "") + json.dumps(rule._asdict() | _lists(series))
        yield "]}"


def _lists(series: Series) -> dict[str, list[int]]:
    return {"allowed": series.allowed.tolist(), "denied": series.denied.tolist()}


class _Ring:
    """The numbers of one series; `last` is the latest second that has any."""

    __slots__ = ("allowed", "denied", "last")

    def __init__(self, second: int) -> None:
        self.allowed, self.denied = array("q", bytes(8 * _SLOTS)), array("q", bytes(8 * _SLOTS))
        self.last = second

    def add(self, second: int, allowed: int, denied: int) -> None:
        self.allowed[second % _SLOTS] += allowed
        self.denied[second % _SLOTS] += denied
        self.last = second

    def clear(self, second: int) -> None:
        self.allowed[second % _SLOTS] = self.denied[second % _SLOTS] = 0

    def cut(self, first: int, last: int) -> Series:
        begin, end = first % _SLOTS, last % _SLOTS + 1
        if begin < end:
            return Series(self.allowed[begin:end], self.denied[begin:end])
        return Series(self.allowed[begin:] + self.allowed[:end], self.denied[begin:] + self.denied[:end])


class _Table(Generic[K]):
    """At most `most` series; the rest shares the one of `other`."""

    def __init__(self, most: int, other: K) -> None:
        self._most = most
        self._other = other
        self._rings: dict[K, _Ring] = {}

    def add(self, seconds: range, key: K, allowed: int, denied: int) -> None:
        """Spread calls over the seconds."""
        ring = self._rings.get(key)
        if ring is None:
            if len(self._rings) >= self._most:
                key = self._other
            ring = self._rings.get(key)
            if ring is None:
                ring = self._rings[key] = _Ring(seconds[-1])
        for left in range(len(seconds), 0, -1):
            ring.add(seconds[-left], allowed // left, denied // left)
            allowed -= allowed // left
            denied -= denied // left

    def clear(self, second: int) -> None:
        for ring in self._rings.values():
            ring.clear(second)

    def cut(self, first: int, last: int) -> dict[K, Series]:
        return {key: ring.cut(first, last) for key, ring in self._rings.items() if ring.last >= first}

    def forget(self, unwanted: Callable[[K], bool]) -> None:
        for key in list(filter(unwanted, self._rings)):
            del self._rings[key]

    def make_room(self, second: int) -> Container[K] | None:
        """If there is no room for others, drop series without a call for long; returns what has one if none is made."""
        if len(self._rings) >= self._most:
            for key in [key for key, ring in self._rings.items() if ring.last <= second - SECONDS]:
                del self._rings[key]
        return self._rings if len(self._rings) >= self._most else None


class History:
    """What was counted in each of the last SECONDS seconds, which are numbered from 1 on.

    `read` yields what the metrics have counted since it was called before, in pieces that are quick to make. Where
    there is no room for more rules, it is given those that have series, and may put all others together. `clock` gives
    seconds, `wall_s` seconds since the epoch.
    """

    def __init__(
        self,
        read: Callable[[Container[RuleKey] | None], Iterator[Iterable[Change]]],
        *,
        clock: Callable[[], float] = monotonic,
        wall_s: Callable[[], float] = time,
        cpu_s: Callable[[], float] = thread_time,
    ) -> None:
        self._read = read
        self._cpu_s = cpu_s
        self._clock = clock
        self._wall_s = wall_s
        self._began_s = clock()
        self._tiers: _Table[str] = _Table(MAX_TIERS, OTHER)
        self._rules: _Table[RuleKey] = _Table(MAX_RULES, OTHER_RULES)
        self.last = 0
        """The number of the latest second that is complete."""

        self.forgotten = 0
        """How often series were forgotten: who has had everything before that is to get everything again."""

    async def keep(self) -> None:
        """Read the counters each second, for ever; where that takes more than READING_CPU of a core, less often."""
        pause_s = 1
        while True:
            ends = self._began_s + self.last + pause_s
            await asyncio.sleep(max(ends - self._clock(), 0))
            spent_s, before = 0.0, self._cpu_s()
            for _ in self.sample():
                spent_s += self._cpu_s() - before
                await asyncio.sleep(0)
                before = self._cpu_s()
            pause_s = min(1 + int(spent_s / READING_CPU), LONGEST_PAUSE_S)

    def sample(self) -> Iterator[None]:
        """Read what was counted since the last time, in steps, as that of the second that ends now.

        Where a few seconds went by without a reading, their calls are spread evenly over them. If they are more than
        LONGEST_PAUSE_S, the last one has them all.
        """
        second = max(int(self._clock() - self._began_s), self.last + 1)
        for passed in range(max(self.last + 1, second - SECONDS), second + 1):
            self._tiers.clear(passed)
            self._rules.clear(passed)
        seconds = range(self.last + 1 if second - self.last <= LONGEST_PAUSE_S else second, second + 1)
        self._tiers.make_room(second)
        for piece in self._read(self._rules.make_room(second)):
            for key, allowed, denied in piece:
                if isinstance(key, str):
                    self._tiers.add(seconds, key, allowed, denied)
                else:
                    self._rules.add(seconds, key, allowed, denied)
            yield
        self.last = second

    def forget(self, domains: Container[str]) -> None:
        """Forget the series of these domains' rules."""
        self._rules.forget(lambda key: key.domain in domains)
        self.forgotten += 1

    def since(self, second: int = 0) -> HistorySlice:
        """What was counted after the second of this number, as far back as it is known."""
        last = self.last
        first = max(second + 1, last - SECONDS + 1, 1)
        age_s = self._clock() - self._began_s - last
        at_s = self._wall_s() - age_s
        if first > last:
            return HistorySlice(first, last, at_s, {}, {})
        return HistorySlice(first, last, at_s, self._tiers.cut(first, last), self._rules.cut(first, last))
