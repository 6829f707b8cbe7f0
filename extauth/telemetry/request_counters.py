"""The requests by path, status and tier, and the series that all calls with one PlanTemplate count in."""

from fractions import Fraction
from typing import Any

from extauth.limiter.memo import Memo
from extauth.limiter.plan import PlanTemplate
from extauth.telemetry import catalogue
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.near_limit import Watch, watch
from extauth.telemetry.tables import OTHER, Cell, CounterTable, named_first

MAX_PATHS = 100
MAX_TEMPLATES_BYTES = 8 << 20


class TemplateSeries:
    """The series of a PlanTemplate: allowed and denied calls, those near a limit, and those to which no rule applied.

    `start` and `step` are those of the one Watch, or 0 where there are several, so that these are looked at each time.
    If it `looks`, calls of which none was admitted are to be looked at, too: there are several limits, or one that is
    `soft`.
    """

    __slots__ = ("allowed", "denied", "looks", "near", "start", "step", "unmatched", "watches")

    def __init__(
        self, allowed: Cell, denied: Cell, near: Cell, unmatched: Cell | None, watches: tuple[Watch, ...], *, soft: bool
    ) -> None:
        self.allowed = allowed
        self.denied = denied
        self.near = near
        self.unmatched = unmatched
        self.watches = watches
        self.looks = soft or len(watches) > 1
        self.start, self.step, _ = watches[0] if len(watches) == 1 else (0, 0, 0)


class RequestCounters:
    """Tables of counters by path, status and tier.

    `by_template` has the series of the PlanTemplates that were decided since the rules were reloaded; `series` makes
    them. The first MAX_PATHS paths have series, the others share `other`, as do those that must not be shown any more,
    by `masked`. A counter is near its limit above `near_limit_ratio` of it.
    """

    def __init__(self, masked: MaskedNames, near_limit_ratio: Fraction) -> None:
        self.requests = CounterTable(catalogue.REQUESTS)
        self.near = CounterTable(catalogue.TIER_NEAR_LIMIT)
        self.unmatched = CounterTable(catalogue.UNMATCHED_CALLS)
        self.by_template: Memo[PlanTemplate, TemplateSeries] = Memo(MAX_TEMPLATES_BYTES)
        self._masked = masked
        self._near_limit_ratio = near_limit_ratio
        self._paths: set[str] = set()

    @property
    def tables(self) -> tuple[CounterTable, ...]:
        """All of them."""
        return self.requests, self.near, self.unmatched

    def series(self, template: PlanTemplate) -> TemplateSeries:
        """The series of a PlanTemplate, which are made and remembered where they are not known."""
        known = self.by_template.get(template)
        if known is not None:
            return known
        shown = self._masked.show_plans_of(template)
        path = named_first(self._paths, template.labels.path, MAX_PATHS) if shown else OTHER
        tier = template.labels.tier
        allowed, denied = (self.requests.cell(path, status, tier) for status in ("allowed", "denied"))
        unmatched = None if template.matched else self.unmatched.cell(template.domain or OTHER)
        watches = tuple([watch(check, self._near_limit_ratio) for check in template.checks])
        series = TemplateSeries(allowed, denied, self.near.cell(tier), unmatched, watches, soft=template.soft)
        # The size includes the template, since nothing else may refer to it any more.
        self.by_template.remember(template, series, template.bytes + 300 + 200 * len(watches))
        return series

    def add(self, template: PlanTemplate, calls: int, denied: int) -> None:
        """Count calls, of which some were denied."""
        series = self.series(template)
        series.allowed.value += calls - denied
        series.denied.value += denied

    def rules_loaded(self, *, remasked: bool) -> list[dict[Any, Any]]:
        """Start anew, for other rules are in force; returns tables that are no longer used, to be emptied bit by bit.

        If paths are `remasked`, the series of all requests are forgotten.
        """
        self._paths.clear()
        unused: list[dict[Any, Any]] = [self.by_template]
        self.by_template = Memo(MAX_TEMPLATES_BYTES)
        if remasked:
            unused += self.requests.forget()
        return unused + [each for table in self.tables for each in table.age()]
