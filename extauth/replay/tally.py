"""What is counted while a log is replayed: by tier and by rule, over time, and by caller; in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

from extauth.rules.rule_names import RuleName
from extauth.telemetry.tables import named_first

MAX_BUCKETS = 240
MAX_TIMELINES = 1000  # rules that have one
MAX_NAMES_FROM_REQUESTS = 1000  # as in the metrics
MAX_CALLERS = 100_000  # of all rules together


class Caller:
    """A caller who was denied: when first, and how often."""

    __slots__ = ("denied", "first_us", "shown")

    def __init__(self, shown: str, first_us: int) -> None:
        self.shown = shown
        self.first_us = first_us
        self.denied = 0


class Peak(NamedTuple):
    """The second with the most calls."""

    calls: int = 0
    second: int = 0


class Tally:
    """Calls of a tier or a rule, in all and by the second.

    `denied` are those of the calls that were denied, and that the rule had no room for; `over` those that it had no
    room for, denied or not. `timeline` has the (allowed, denied) of each bucket, None where none is kept.
    """

    __slots__ = ("calls", "calls_now", "denied", "denied_now", "over", "peak", "timeline")

    def __init__(self, *, with_timeline: bool = True) -> None:
        self.calls = self.denied = self.over = self.calls_now = self.denied_now = 0
        self.peak = Peak()
        self.timeline: dict[int, tuple[int, int]] | None = {} if with_timeline else None

    def end_second(self, second: int, bucket: int) -> None:
        """Add what the second brought to the rest."""
        calls, denied = self.calls_now, self.denied_now
        self.calls_now = self.denied_now = 0
        self.calls += calls
        self.denied += denied
        if calls > self.peak.calls:
            self.peak = Peak(calls, second)
        if self.timeline is not None:
            allowed_before, denied_before = self.timeline.get(bucket, (0, 0))
            self.timeline[bucket] = allowed_before + calls - denied, denied_before + denied


class RuleTally(Tally):
    """The calls of one rule, and who was denied by it; `limits` are its own, in words, `tier` its limit's name."""

    __slots__ = ("callers", "limits", "tier")

    def __init__(self, *, with_timeline: bool = True) -> None:
        super().__init__(with_timeline=with_timeline)
        self.limits: dict[str, None] = {}
        self.tier = ""
        self.callers: dict[str, Caller] = {}


class Timeline:
    """Buckets of equal width, at most MAX_BUCKETS from the first second on: their width doubles where more are needed.

    `tallies` are those that are cut into them.
    """

    def __init__(self) -> None:
        self.begin: int | None = None
        self.width_s = 1
        self.tallies: list[Tally] = []

    def bucket(self, second: int) -> int:
        """The index of the bucket that the second is in; no second precedes the first."""
        if self.begin is None:
            self.begin = second
        while (second - self.begin) // self.width_s >= MAX_BUCKETS:
            self.width_s *= 2
            for tally in self.tallies:
                if tally.timeline is not None:
                    tally.timeline = _halved(tally.timeline)
        return (second - self.begin) // self.width_s


def _halved(timeline: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    merged: dict[int, tuple[int, int]] = {}
    for bucket, (allowed, denied) in timeline.items():
        before = merged.get(bucket // 2, (0, 0))
        merged[bucket // 2] = before[0] + allowed, before[1] + denied
    return merged


class Tallies:
    """The tallies of one config."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.tiers: dict[str, Tally] = {}
        self.rules: dict[tuple[str, str], RuleTally] = {}
        self._names_from_requests: set[str] = set()
        self._callers = 0
        self.callers_left_out = False

    def tier(self, name: str) -> Tally:
        """The tally of a tier."""
        tally = self.tiers.get(name)
        if tally is None:
            tally = self.tiers[name] = Tally()
            self._timeline.tallies.append(tally)
        return tally

    def rule(self, rule: RuleName) -> RuleTally:
        """The tally of a rule; of names that contain values of requests, only the first have one of their own."""
        name = rule.name
        if not rule.in_file:
            name = named_first(self._names_from_requests, name, MAX_NAMES_FROM_REQUESTS)
        tally = self.rules.get((rule.domain, name))
        if tally is None:
            tally = self.rules[rule.domain, name] = RuleTally(with_timeline=len(self.rules) < MAX_TIMELINES)
            self._timeline.tallies.append(tally)
        return tally

    def deny(self, tally: RuleTally, shown: str, now_us: int) -> None:
        """Count a denial of a caller by a rule."""
        caller = tally.callers.get(shown)
        if caller is None:
            if self._callers >= MAX_CALLERS:
                self.callers_left_out = True
                return
            self._callers += 1
            caller = tally.callers[shown] = Caller(shown, now_us)
        caller.denied += 1

    def __iter__(self) -> Iterator[Tally]:
        yield from self.tiers.values()
        yield from self.rules.values()
