"""A plain oracle of what a server may admit.

It counts again, in the simplest way there is, and shares no code with the algorithms of extauth.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from extauth.limiter.counters import Group, Mode, Owed, Part, Return, TakeResult
from extauth.rules.model import Algorithm, Limit
from simulation.oracle import Fail

_Hits = tuple[int, Fraction | int]
"""An instant, and the number of hits."""


class _Counter:
    """The hits that a counter has admitted. Those that were given back are left out, as if never taken."""

    def __init__(self, limit: Limit) -> None:
        self.hits: list[_Hits] = []  # in the order in which they came; a bucket's since it was empty
        self._limit = limit
        self._is_bucket = limit.algorithm is Algorithm.GCRA
        self._reserved: defaultdict[int, int] = defaultdict(int)  # by instant: those that may be given back
        self._at = 0  # of a bucket, as `_level`
        self._level = Fraction(0)

    def add(self, hits: Fraction | int, now: int, *, reserved: bool = False) -> None:
        """Add hits, or none: whoever looks at a bucket has it remember a clock that went back."""
        if self._is_bucket:
            before, back = self._at, now < self._at
            self._drain(now)
            if not self._level:
                self.hits.clear()
            elif back:
                self.hits += [(before, 0), (now, 0)]
            self._level += hits
        if hits:
            self.hits.append((now, hits))
            if reserved:
                self._reserved[now] += int(hits)

    def used(self, now: int) -> Fraction:
        """The number of hits that are used; of a bucket, when it was looked at last."""
        limit = self._limit
        if self._is_bucket:
            return self._level
        if limit.algorithm is Algorithm.FIXED_WINDOW:
            window = now // limit.period_us
            return Fraction(sum(hits for at, hits in self.hits if at // limit.period_us == window))
        return Fraction(sum(hits for at, hits in self.hits if now - limit.period_us < at))

    def give_back(self, hits: int, at: int) -> int:
        """Leave out hits that were reserved at an instant, or by the same calls later; returns how many were not."""
        for instant in (at, *sorted(each for each in self._reserved if each > at)):
            own = min(hits, self._reserved.get(instant, 0))
            if own:
                self._reserved[instant] -= own
                self._leave_out(own, [i for i, (its_at, _) in enumerate(self.hits) if its_at == instant])
                hits -= own
        return hits

    def lose(self, hits: int) -> None:
        """Leave out hits, whichever they are."""
        self._leave_out(hits, range(len(self.hits) - 1, -1, -1))

    def forget_windows(self) -> None:
        """Forget the hits of windows; a bucket stays as full as it is."""
        if not self._is_bucket:
            self.hits.clear()

    def _leave_out(self, hits: int, places: Sequence[int]) -> None:
        left = Fraction(hits)
        for i in places:
            at, its = self.hits[i]
            own = min(left, Fraction(its))
            self.hits[i] = (at, its - own)
            left -= own
        if self._is_bucket:
            now, before = self._at, self.hits
            self._level = Fraction(0)
            for at, its in before:
                self._drain(at)
                self._level += its
            self._drain(now)

    def _drain(self, now: int) -> None:
        drained = Fraction(max(now - self._at, 0) * self._limit.requests_per_unit, self._limit.period_us)
        self._at, self._level = now, max(self._level - drained, Fraction(0))


class StoreOracle:
    """Watches a server: it admits no more than the limit, with what was settled counted in.

    Hits of requests over several shards that another shard denied are given back, once: then they count no longer.
    """

    def __init__(self, limits: Mapping[bytes, Limit], fail: Fail) -> None:
        # By the identity of a counter's name, and so by the kind of request and the replica:
        self.admitted: defaultdict[int, int] = defaultdict(int)  # calls
        self.reserved: defaultdict[int, int] = defaultdict(int)  # hits that may be given back
        self.returned: defaultdict[int, int] = defaultdict(int)  # hits that were
        self.losses = self.setbacks = 0  # how often its data were lost, and its clock set back
        self._limits = limits
        self._fail = fail
        self._counters: dict[bytes, _Counter] = {}

    def taken(self, groups: Sequence[Group], takens: Sequence[TakeResult], now: int) -> None:
        """The store has counted."""
        for (take, _), taken in zip(groups, takens, strict=True):
            several = isinstance(take, Part)
            for name, check in zip(take.names, take.checks, strict=True):
                self.admitted[id(name)] += taken.admitted
                counter = self._counter(name, check.limit)
                if check.mode is not Mode.ENFORCED:  # what it takes counts for nobody, but it looks at the counter
                    counter.add(0, now)
                else:
                    hits = taken.admitted * check.cost
                    counter.add(hits, now, reserved=several)
                    self.reserved[id(name)] += hits * several
                    used = counter.used(now)
                    if taken.admitted and used > check.limit.capacity:
                        self._fail(f"the store admitted {float(used):g} of {name.decode()}, {check.limit}")

    def settled(self, owed: Sequence[Owed], now: int) -> None:
        """The store has added what was owed."""
        for name, _, numbers in owed:
            limit = self._limits[name]
            counter = self._counter(name, limit)
            if limit.algorithm is Algorithm.GCRA:  # ticks
                counter.add(Fraction(numbers[0], limit.emission_interval.ticks), now)
                continue
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            if limit.algorithm is Algorithm.FIXED_WINDOW:
                counter.hits += [(now, hits) for ends_at, hits in pairs if ends_at - limit.period_us <= now < ends_at]
            else:
                counter.hits += [(min(at, now), hits) for at, hits in pairs]

    def given_back(self, returns: Sequence[Return]) -> None:
        """The store has taken hits back."""
        for name, _, hits, at_us in returns:
            self.returned[id(name)] += hits
            if not self.reserved[id(name)] or name not in self._counters:
                continue  # of a limit that never denies, or of data that were lost
            counter = self._counters[name]
            unknown = counter.give_back(hits, at_us)
            if unknown and not self.losses:
                self._fail(f"{unknown} hits of {name.decode()} were given back that were not taken at {at_us}")
            elif unknown:  # of data that were lost; others may have taken as much in the same terms since
                counter.lose(unknown)

    def lost_data(self) -> None:
        """All counters are gone."""
        self.losses += 1
        self._counters.clear()

    def stepped(self, by_us: int) -> None:
        """The clock was set. Back: the windows that it was in are gone, and may come again."""
        if by_us < 0:
            self.setbacks += 1
            for counter in self._counters.values():
                counter.forget_windows()

    def _counter(self, name: bytes, limit: Limit) -> _Counter:
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = _Counter(limit)
        return counter
