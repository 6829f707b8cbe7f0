"""The rules as frozen values: what a config says, once it is known to be right."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from math import gcd
from typing import NamedTuple

from extauth.errors import Problem


class Unit(Enum):
    """A rate limit's unit of time.

    `number` is its value in `envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit`. A month is 30 days and a
    year 365, as in envoyproxy/ratelimit.
    """

    SECOND = (1, 1)
    MINUTE = (2, 60)
    HOUR = (3, 3_600)
    DAY = (4, 86_400)
    WEEK = (7, 7 * 86_400)
    MONTH = (5, 30 * 86_400)
    YEAR = (6, 365 * 86_400)

    def __init__(self, number: int, seconds: int) -> None:
        self.number = number
        self.seconds = seconds

    def __str__(self) -> str:
        return self.name.lower()


class Algorithm(StrEnum):
    """How a limit counts."""

    FIXED_WINDOW = "fixed_window"
    GCRA = "gcra"

    @property
    def counts_denied(self) -> bool:
        """The default of `count_denied`: fixed windows count denied hits, as envoyproxy/ratelimit does."""
        return self is Algorithm.FIXED_WINDOW


class EmissionInterval(NamedTuple):
    """The time that one request of a gcra limit costs: `ticks` / `ticks_per_us` microseconds, in lowest terms."""

    ticks: int
    ticks_per_us: int


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests a unit of time.

    `requests_per_unit` is 0 to 2**32 - 1; 0 denies everything. `count_denied` says whether hits count even when the
    request is denied. `name` is what another limit's `replaces` may speak of; `replaces` drops limits by that name
    from a request in which this one applies. What is worked out from these is worked out once, here.
    """

    requests_per_unit: int
    unit: Unit
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    count_denied: bool = True
    name: str = ""
    replaces: tuple[str, ...] = ()
    period_us: int = field(init=False, repr=False, compare=False)
    emission_interval: EmissionInterval = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        period_us = self.unit.seconds * 1_000_000
        # A limit that admits nothing has no emission interval; its whole period serves as well as any.
        divisor = gcd(period_us, self.requests_per_unit) if self.requests_per_unit else 1
        interval = EmissionInterval(period_us // divisor, self.requests_per_unit // divisor or 1)
        values = (self.requests_per_unit, self.unit.number, self.algorithm, self.count_denied, self.name, self.replaces)
        object.__setattr__(self, "period_us", period_us)
        object.__setattr__(self, "emission_interval", interval)
        object.__setattr__(self, "_hash", hash(values))

    def __hash__(self) -> int:
        return self._hash

    @property
    def burst(self) -> int:
        """The requests that a gcra limit admits at one instant after a rest."""
        return self.requests_per_unit

    def __str__(self) -> str:
        return f"{self.requests_per_unit} per {self.unit}"


@dataclass(frozen=True, slots=True)
class Tier:
    """A named limit that rules refer to; the limit's name is the tier's."""

    name: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class Rule:
    """One descriptor of the config: it matches the entry (`key`, `value`), or any value of `key` where value is None.

    `limit` applies to a request's descriptor that ends here; `rules` match the entry after this one. `tier` is the
    name of the tier that the limit came from. `line` is where the rule stands in `file`, from 1.
    """

    key: str
    value: str | None = None
    limit: Limit | None = None
    tier: str | None = None
    rules: tuple["Rule", ...] = ()
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Domain:
    """The rules for one domain of requests; `labels` are entry keys that label the metrics and limit nothing."""

    name: str
    rules: tuple[Rule, ...] = ()
    tiers: tuple[Tier, ...] = ()
    labels: tuple[str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All domains of a config, by name; `warnings` are what in its files looks like a mistake."""

    domains: Mapping[str, Domain] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        """Every rule of every domain, outer before inner."""
        pending = [rule for domain in reversed(list(self.domains.values())) for rule in reversed(domain.rules)]
        while pending:
            rule = pending.pop()
            yield rule
            pending.extend(reversed(rule.rules))

    def __len__(self) -> int:
        return sum(1 for _ in self)
