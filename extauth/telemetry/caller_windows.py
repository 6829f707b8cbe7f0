"""The callers of one rule, or of several: those of this window of time, and those of the one before."""

import weakref
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from extauth.limiter.plan import Plan
from extauth.rules.rule_names import RuleName
from extauth.telemetry.sketch import SpaceSaving


class Who:
    """The caller of an entry: its rule, and its text once that was made from the `plan`, as long as there is one."""

    __slots__ = ("plan", "rule", "text")

    def __init__(self, rule: RuleName, plan: Plan) -> None:
        self.rule = rule
        self.plan: Callable[[], Plan | None] | None = weakref.ref(plan)
        self.text: str | None = None


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
