"""The series that all calls with one PlanTemplate count in."""

from extauth.telemetry.near_limit import Watch
from extauth.telemetry.tables import Cell


class TemplateSeries:
    """The series of a PlanTemplate: allowed and denied calls, those near a limit, and those to which no rule applied.

    `start` and `step` are those of the one Watch, or 0 where there are several, so that these are looked at each time.
    """

    __slots__ = ("allowed", "denied", "near", "start", "step", "unmatched", "watches")

    def __init__(
        self, allowed: Cell, denied: Cell, near: Cell, unmatched: Cell | None, watches: tuple[Watch, ...]
    ) -> None:
        self.allowed = allowed
        self.denied = denied
        self.near = near
        self.unmatched = unmatched
        self.watches = watches
        self.start, self.step, _ = watches[0] if len(watches) == 1 else (0, 0, 0)
