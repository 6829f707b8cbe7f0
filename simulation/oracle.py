"""A plain oracle of what may be admitted in all, by the store and by replicas that count alone.

It counts again, in the simplest way there is, and shares no code with the algorithms of extauth.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from operator import attrgetter
from typing import NamedTuple

from extauth.rules.model import Algorithm, Limit

Fail = Callable[[str], None]
DRIFT_US = 100_000
"""A replica's idea of the store's clock is late by the way of the last reply, which this bounds: a timeout."""
_AT = attrgetter("at_us")


class Admission(NamedTuple):
    """Hits that callers were told are admitted, at an instant of the store's clock, and of its elapsed time.

    `alone` is the replica that decided without the store, None where the store did. With `sent` the store was asked
    about them, and may have counted them. `share` is the part of each limit that the replica had then.
    """

    at_us: int
    elapsed_us: int
    hits: int
    alone: str | None
    sent: bool = False
    share: Fraction = Fraction(1)


class Bound(NamedTuple):
    """What may be admitted of a limit, where each of the `replicas` may admit its share of it by itself.

    `anew` is how often all of it may be admitted anew: the store lost its data, or its windows with the clock.
    """

    limit: Limit
    replicas: int
    anew: int

    def part(self, share: Fraction) -> int:
        """What one replica may admit by itself."""
        return max(int(self.limit.capacity * share), 1)

    def of(self, shares: Iterable[Fraction], unknown: int) -> int:
        """What may be admitted in a window in which replicas with these shares counted alone.

        `unknown` hits were counted alone and are not known to the store.
        """
        return (self.limit.capacity + sum(map(self.part, shares))) * (1 + self.anew) + unknown


def check_in_all(
    name: bytes, bound: Bound, admissions: Sequence[Admission], lost: Sequence[tuple[int, int]], fail: Fail
) -> None:
    """Callers are admitted at most the limit and a share for each replica that counted alone.

    Hits about which the store was asked in vain, and those that were `lost` on the way to it (instant, hits), come on
    top: the store never learns of them. A replica's own bound holds for them all the same, see `check_alone`.
    """
    if bound.limit.algorithm is Algorithm.GCRA:
        _check_bucket(name, bound, admissions, sum(hits for _, hits in lost), fail)
        return
    period = bound.limit.period_us
    twice = _begun_twice(bound.limit, admissions)
    for span in _spans(bound.limit, sorted(admissions, key=_AT)):
        hits = sum(each.hits for each in span)
        alone = _shares(span)
        first, last = span[0].at_us, span[-1].at_us
        unknown = sum(each.hits for each in span if each.sent)
        unknown += sum(n for at, n in lost if first - period < at <= last + period)
        shares = [*alone.values(), *(share for who, share in alone.items() if (who, first // period) in twice)]
        if hits > bound.of(shares, unknown):
            fail(
                f"{hits} of {name.decode()} ({bound.limit}) were admitted, {len(alone)} replicas counting alone"
                f" with shares of {_listed(alone.values())}, of which {unknown} are unknown to the store"
            )
            return


def _shares(admissions: Iterable[Admission]) -> dict[str, Fraction]:
    """The largest share that each replica had while it counted alone."""
    shares: dict[str, Fraction] = {}
    for each in admissions:
        if each.alone is not None:
            shares[each.alone] = max(each.share, shares.get(each.alone, each.share))
    return shares


def _listed(shares: Iterable[Fraction]) -> str:
    return ", ".join(map(str, shares))


def _spans(limit: Limit, admissions: Sequence[Admission]) -> list[Sequence[Admission]]:
    """The admissions of each fixed window, or of each sliding window that ends with one of them."""
    period = limit.period_us
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        windows: defaultdict[int, list[Admission]] = defaultdict(list)
        for each in admissions:
            windows[each.at_us // period].append(each)
        return list(windows.values())
    spans = []
    first = 0
    for end, each in enumerate(admissions):
        while admissions[first].at_us <= each.at_us - period:
            first += 1
        spans.append(admissions[first : end + 1])
    return spans


def _begun_twice(limit: Limit, admissions: Sequence[Admission]) -> set[tuple[str | None, int]]:
    """(replica, fixed window) of which the replica had counted something when its clock fell back into the one before.

    Its idea of the store's clock follows each reply, and these take more or less time: by what they differ, a window
    may begin twice, and its share with it.
    """
    twice: set[tuple[str | None, int]] = set()
    if limit.algorithm is Algorithm.FIXED_WINDOW:
        latest: dict[str | None, int] = {}
        for each in admissions:
            window = each.at_us // limit.period_us
            if window < latest.get(each.alone, window):
                twice.add((each.alone, latest[each.alone]))
            latest[each.alone] = max(window, latest.get(each.alone, window))
    return twice


def _check_bucket(name: bytes, bound: Bound, admissions: Sequence[Admission], lost: int, fail: Fail) -> None:
    """A bucket as large as the limit and the shares, which drains as fast as all who count admit at most."""
    shares = _shares(admissions)
    alone = len(shares)
    unknown = sum(each.hits for each in admissions if each.sent) + lost
    capacity = bound.of([*shares.values(), *(shares[who] for who in _caught_up(admissions))], unknown)
    everywhere = alone >= bound.replicas
    rate = Fraction(bound.limit.requests_per_unit, bound.limit.period_us)
    rate *= 1 + sum(shares.values()) - (min(shares.values()) if everywhere and alone else 0)
    level, at = Fraction(0), 0
    for each in sorted(admissions, key=attrgetter("elapsed_us")):
        level = max(level - rate * (each.elapsed_us - at), Fraction(0)) + each.hits
        at = each.elapsed_us
        if level > capacity + (rate * DRIFT_US if alone else 0):
            fail(
                f"{float(level):.3f} of {name.decode()} ({bound.limit}) were admitted at once, a bucket of {capacity} "
                f"being allowed, with {alone} replicas counting alone and {unknown} hits unknown to the store"
            )
            return


def _caught_up(admissions: Iterable[Admission]) -> list[str]:
    """The replicas whose clock caught up between two admissions, each as often as that was.

    The store's clock had been set forward, of which they had not heard: their buckets drain by that only then.
    """
    last: dict[str, Admission] = {}
    found = []
    for each in admissions:
        if each.alone is not None:
            before = last.get(each.alone, each)
            if each.at_us - before.at_us - (each.elapsed_us - before.elapsed_us) > DRIFT_US:
                found.append(each.alone)
            last[each.alone] = each
    return found


def check_alone(name: bytes, bound: Bound, stretch: Sequence[Admission], fail: Fail) -> None:
    """From one report of the store about a counter to the next, a replica admits at most its share."""
    if not stretch:
        return
    share = max(_shares(stretch).values())
    part = bound.part(share)
    limit = bound.limit
    if limit.algorithm is not Algorithm.GCRA:
        twice = _begun_twice(limit, stretch)
        for span in _spans(limit, sorted(stretch, key=_AT)):
            hits = sum(each.hits for each in span)
            shares = 1 + ((span[0].alone, span[0].at_us // limit.period_us) in twice)
            if hits > shares * part:
                fail(f"a replica admitted {hits} of {name.decode()} by itself, its share being {part} of {limit}")
        return
    rate = Fraction(max(int(limit.requests_per_unit * share), 1), limit.period_us)
    level, before = Fraction(0), stretch[0]
    for each in stretch:
        # By its own clock, too, which catches up with the store's if that was set forward: see _caught_up.
        passed_us = max(each.elapsed_us - before.elapsed_us, each.at_us - before.at_us)
        level = max(level - rate * passed_us, Fraction(0)) + each.hits
        before = each
        if level > part + rate * DRIFT_US:
            fail(f"a replica admitted {float(level):.3f} of {name.decode()} by itself, its share being {part}")
            return
