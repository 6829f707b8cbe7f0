"""The callers of one rule, or of several: those of this window of time, and those of the one before."""

import weakref
from collections.abc import Callable, Container
from contextlib import suppress

from extauth.errors import InvalidRequestError
from extauth.limiter.plan import Plan
from extauth.limiter.planner import Planner
from extauth.rules.rule_names import RuleName
from extauth.telemetry.sketch import SpaceSaving


class Who:
    """The caller of an entry: its rule, and its text once that was made from the `plan`, as long as there is one.

    The rule is None while its name must not be shown any more, until the caller calls again by other rules.
    """

    __slots__ = ("plan", "rule", "text")

    def __init__(self, rule: RuleName, plan: Plan) -> None:
        self.rule: RuleName | None = rule
        self.plan: Callable[[], Plan | None] | None = weakref.ref(plan)
        self.text: str | None = None

    def make_text(self, planner: Planner, key: bytes) -> None:
        """Make the text of the caller whose counter is `key`, if its plan is still there."""
        plan = self.plan() if self.plan is not None else None
        if plan is not None and plan.message:
            # It was planned, so it is valid: unless what is valid depends on the rules.
            with suppress(InvalidRequestError):
                self.text = planner.describe_counter(plan.message, key)
            self.plan = None


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
        if who.rule is None:
            who.rule = rule
        if who.text is None and (who.plan is None or who.plan() is None):
            who.plan = weakref.ref(plan)
        return who

    def forget_names(self, domains: Container[str]) -> None:
        """Show nothing of the callers of these domains until they call again, and name them anew then."""
        for sketch in (self.now, self.before):
            for entry in list(sketch):
                who: Who = entry.note
                if who.rule is None or who.rule.domain in domains:
                    who.rule = who.text = who.plan = None
                    sketch.set_aside(entry)
