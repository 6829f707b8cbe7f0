"""What a request counts: its plan, and what plans share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from extauth.limiter.counters import CounterSet, LimitCheck, Mode, Source
from extauth.limiter.verdict import Labels
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.rule_names import RuleName

UNLIMITED_AT: Final = (-1,)  # stands for a descriptor's counters where it is unlimited


class RequestMetadata(NamedTuple):
    """The data for an answer's dynamic metadata: of the request, and of each descriptor's rule."""

    request: Mapping[str, Any]
    metadata: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PlanTemplate:
    """The part of a plan that many rules have in common: the checks, and the form of the responses.

    `counters_of` says, for each descriptor, which of the plan's counters are its own: none, or UNLIMITED_AT. `tier` is
    the first tier, in descriptor order, that nothing replaced. `domain` is empty where no file defines it; `matched`
    says whether a rule or a limit of the request's own applied to any of the descriptors. `secret` are the keys whose
    values are masked in the labels and in the names of the plans' rules. An admitted call may be over a limit only if
    it is `soft`. `cost_us` is about how long Redis takes to count one call, `bytes` how much memory it takes up. Where
    the store, or a part of it, is away, `without_store` says who decides in its place: LOCAL about all calls, or
    FAILURE_POLICY about those that are admitted, where what has counted denies the others. The checks are then those at
    `places` of the whole plan, whose tally its plans have. Compared by identity.
    """

    checks: tuple[LimitCheck, ...]
    counters_of: tuple[tuple[int, ...], ...]
    tier: str | None
    labels: Labels
    domain: str = ""
    matched: bool = True
    metadata: RequestMetadata | None = None
    without_store: Source | None = None
    places: tuple[int, ...] | None = None
    secret: SecretKeys = NAMED_SO
    soft: bool = field(init=False)
    cost_us: int = field(init=False)
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "soft", any(check.mode is not Mode.ENFORCED for check in self.checks))
        object.__setattr__(self, "cost_us", sum(check.algorithm.cost_us for check in self.checks))
        object.__setattr__(self, "bytes", 400 + 80 * len(self.counters_of) + 160 * len(self.checks))

    @property
    def denied_by(self) -> Source | None:
        """Who denies in place of the store, of those `without_store`; the failure policy only admits here."""
        return None if self.without_store is Source.FAILURE_POLICY else self.without_store

    @property
    def blocks(self) -> bool:
        """Whether any of the limits may deny."""
        return any(check.mode is Mode.ENFORCED or check.mode is Mode.QUOTA for check in self.checks)


class Tally:
    """The name of the rule of each check; one object for all plans with the same rules.

    The checks at `shadowed` are of rules in shadow mode. `series` belongs to the metrics, which look the rules' series
    up once, and `callers` to telemetry.top in the same way.
    """

    __slots__ = ("callers", "rules", "series", "shadowed")

    def __init__(self, rules: tuple[RuleName, ...], shadowed: tuple[int, ...] = ()) -> None:
        self.rules = rules
        self.shadowed = shadowed
        self.series: Any = None
        self.callers: Any = None

    @property
    def own_bytes(self) -> int:
        """About how many bytes the names take up that no file has."""
        return sum(len(rule.name) + 150 for rule in self.rules if not rule.in_file)


NO_TALLY = Tally(())


class Plan(CounterSet):
    """What a request counts. There are very many plans, so one holds only what it shares with no other.

    `message` is the request, empty where a plan was not made from one. It may hold API keys: whoever wants to know more
    than the names of the counters keeps a weak reference to the plan, and so nothing longer than the planner does.
    `calls` and, among them, `denied` belong to the metrics: they count here, in memory that the decision has touched
    anyway.
    """

    __slots__ = ("__weakref__", "calls", "cost_us", "denied", "message", "tally", "template")

    def __init__(self, names: tuple[bytes, ...], template: PlanTemplate, tally: Tally = NO_TALLY) -> None:
        self.names = names
        self.checks = template.checks
        self.reported = None
        self.template = template
        self.tally = tally
        self.cost_us = template.cost_us
        self.calls = self.denied = 0
        self.message = b""

    @property
    def log(self) -> bytes:
        """A field for the Struct of the answers' dynamic metadata, which the access log takes up; nothing here."""
        return b""

    def of_local_counters(self, names: tuple[bytes, ...], template: PlanTemplate) -> "Plan":
        """The plan of the same requests for counters of this replica alone."""
        return Plan(names, template, self.tally)


class LoggedPlan(Plan):
    """A plan with a `log`, that of the one request that it is made for."""

    __slots__ = ("log",)

    def __init__(self, names: tuple[bytes, ...], template: PlanTemplate, tally: Tally, log: bytes) -> None:
        super().__init__(names, template, tally)
        self.log = log  # type: ignore[misc]  # here it is a slot

    def of_local_counters(self, names: tuple[bytes, ...], template: PlanTemplate) -> Plan:
        """As Plan's, with the same log."""
        return LoggedPlan(names, template, self.tally, self.log)
