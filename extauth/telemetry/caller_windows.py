"""The callers of one rule, or of several: those of this window of time, and those of the one before."""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import nlargest
from operator import attrgetter
from typing import NamedTuple

from extauth.limiter.plan import Plan
from extauth.rules.rule_names import RuleName
from extauth.telemetry.sketch import Entry, SpaceSaving


class Who:
    """The caller of an entry: its rule, and its text once that was made from the `plan`, as long as there is one."""

    __slots__ = ("plan", "rule", "text")

    def __init__(self, rule: RuleName, plan: Plan) -> None:
        self.rule = rule
        self.plan: Callable[[], Plan | None] | None = weakref.ref(plan)
        self.text: str | None = None


class Row:
    """All entries of a caller; instants are those of the observer's clock."""

    __slots__ = ("calls", "error", "first_s", "floors", "key", "last_s", "places", "who")

    def __init__(self, entry: Entry) -> None:
        self.key = entry.key
        self.calls = self.error = self.floors = 0
        self.first_s, self.last_s = entry.first_s, entry.last_s
        self.who: Who = entry.note
        self.places: list[tuple[SpaceSaving, Entry]] = []

    def add(self, entry: Entry, sketch: SpaceSaving, floor: int) -> None:
        """Add an entry of a sketch with this floor."""
        self.calls += entry.count
        self.error += entry.error
        self.floors += floor
        self.first_s = min(self.first_s, entry.first_s)
        self.last_s = max(self.last_s, entry.last_s)
        self.places.append((sketch, entry))
        if self.who.text is None:
            self.who = entry.note

    def await_name(self) -> None:
        """Have the caller named anew once it calls again."""
        self.who.plan = None
        for sketch, entry in self.places:
            sketch.set_aside(entry)


class CallerWindows:
    """Two sketches of `capacity` callers each, which began at `began_s`, and at `before_s` the one before.

    `entries` are those of this window, for whoever finds a caller there.
    """

    __slots__ = ("before", "before_s", "began_s", "entries", "now")

    def __init__(self, capacity: int, now_s: float) -> None:
        self.before, self.now = SpaceSaving(capacity), SpaceSaving(capacity)
        self.before_s = self.began_s = now_s
        self.entries = self.now.entries

    def rotate(self, now_s: float) -> None:
        """Begin a new window."""
        self.before, self.before_s = self.now, self.began_s
        self.now, self.began_s = SpaceSaving(self.now.capacity), now_s
        self.entries = self.now.entries

    def add(self, key: bytes, weight: int, now_s: float, rule: RuleName, plan: Plan) -> Who:
        """Count a caller."""
        entry = self.now.add(key, weight, now_s)
        who: Who | None = entry.note
        if who is None:
            earlier = self.before.find(key)
            if earlier is None:
                who = entry.note = Who(rule, plan)
                return who
            who, entry.first_s = earlier.note, earlier.first_s
            entry.note = who
        if who.text is None and (who.plan is None or who.plan() is None):
            who.plan = weakref.ref(plan)
        return who

    def forget_names(self, domains: AbstractSet[str]) -> None:
        """Have the callers of these domains named anew once they call again."""
        for sketch in (self.now, self.before):
            for entry in list(sketch):
                if entry.note.rule.domain in domains:
                    entry.note.text = entry.note.plan = None
                    sketch.set_aside(entry)


class Ranked(NamedTuple):
    """The callers of a rule, most first, and how often each may have been counted beyond that.

    Whoever is not among them was counted at most `others` times.
    """

    rows: Sequence[tuple[Row, int]] = ()
    others: int = 0


class CallerSource(NamedTuple):
    """Where the callers of a rule are counted since `made_s`; before that they were in the pool."""

    rule: RuleName
    windows: CallerWindows
    made_s: float


def rank(pool: CallerWindows, own: Iterable[CallerSource], most: int) -> dict[RuleName, Ranked]:
    """The `most` callers of each rule that were counted most."""
    found: defaultdict[RuleName, dict[bytes, Row]] = defaultdict(dict)

    def collect(sketch: SpaceSaving) -> int:
        floor = sketch.floor
        for entry in sketch:
            rows = found[entry.note.rule]
            row = rows.get(entry.key)
            if row is None:
                row = rows[entry.key] = Row(entry)
            row.add(entry, sketch, floor)
        return floor

    pool_now, pool_before = collect(pool.now), collect(pool.before)
    floors = {}
    for rule, windows, made_s in own:
        pooled = (made_s >= pool.began_s) * pool_now + (made_s >= pool.before_s) * pool_before
        floors[rule] = collect(windows.now) + collect(windows.before) + pooled
    ranked = {}
    for rule, rows in found.items():
        floor = floors.get(rule, pool_now + pool_before)
        best = nlargest(most + 1, rows.values(), key=attrgetter("calls"))
        listed = [(row, max(floor - row.floors, 0)) for row in best[:most]]
        ranked[rule] = Ranked(listed, floor + (best[most].calls if len(best) > most else 0))
    return ranked
