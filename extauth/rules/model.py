"""The rules as frozen values: the meaning of a config that was checked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import Enum, StrEnum
from hashlib import sha256
from math import gcd
from typing import Any, Final, NamedTuple, Self

from extauth.errors import NOWHERE, Diagnostic, Place
from extauth.rules.masking import NAMED_SO, SecretKeys

MAX_EXACT = 10_000  # requests of a sliding window that are remembered one by one


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
        self.period_us = seconds * 1_000_000

    def __str__(self) -> str:
        return self.name.lower()


class Algorithm(StrEnum):
    """How a limit counts.

    `in_reference`: envoyproxy/ratelimit has it, too, and its ways of counting may be asked for. `counts_denied` is the
    default of `count_denied`: fixed windows count denied hits, as envoyproxy/ratelimit does. `own_keys` are those of a
    `rate_limit` that other algorithms do not have.
    """

    FIXED_WINDOW = "fixed_window", True, True
    SLIDING_WINDOW = "sliding_window", False, False
    GCRA = "gcra", False, False, "burst"

    in_reference: bool
    counts_denied: bool
    own_keys: tuple[str, ...]

    def __new__(  # noqa: D102 - a row
        cls, value: str, in_reference: bool = False, counts_denied: bool = False, *own_keys: str
    ) -> Self:
        self = str.__new__(cls, value)
        self._value_, self.own_keys = value, own_keys
        self.in_reference, self.counts_denied = in_reference, counts_denied
        return self


class OnStoreFailure(StrEnum):
    """What a call gets when the store does not answer; LOCAL: each replica counts by itself."""

    LOCAL = "local"
    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class Kind(StrEnum):
    """How a rule matches an entry's value."""

    ANY = "any"
    VALUE = "value"
    VALUES = "values"
    SHA256 = "value_sha256"
    WILDCARD = "wildcard"
    REGEX = "value_regex"
    RANGE = "value_range"
    CIDR = "value_cidr"


class EmissionInterval(NamedTuple):
    """The time that one request of a gcra limit costs: `ticks` / `ticks_per_us` microseconds, in lowest terms."""

    ticks: int
    ticks_per_us: int


NO_INTERVAL: Final = EmissionInterval(1, 1)
"""That of limits that are not gcra."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `requests_per_unit` requests in `unit_multiplier` units of time.

    `requests_per_unit` is 0 to 2**32 - 1; 0 denies everything. `burst` (gcra) is how many requests are admitted at one
    instant after a rest; None: as many as `requests_per_unit`. `count_denied` says whether hits count even when the
    request is denied. another limit's `replaces` refers to it by `name`; `replaces` drops limits by that name
    from a request in which this one applies. `on_store_failure` is None where the service's setting applies.
    An `unlimited` limit counts nothing, and may replace others.
    What is worked out from these is worked out once.
    """

    requests_per_unit: int
    unit: Unit
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    _: KW_ONLY
    count_denied: bool = True
    name: str = ""
    replaces: tuple[str, ...] = ()
    unit_multiplier: int = 1
    burst: int | None = None
    unlimited: bool = False
    on_store_failure: OnStoreFailure | None = None
    period_us: int = field(init=False, repr=False, compare=False)
    capacity: int = field(init=False, repr=False, compare=False)
    emission_interval: EmissionInterval = field(init=False, repr=False, compare=False)
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Of very many limits, most share this number: whoever multiplies it by 1 has another one.
        period_us = self.unit.period_us * self.unit_multiplier if self.unit_multiplier != 1 else self.unit.period_us
        requests = self.requests_per_unit
        capacity, interval = requests, NO_INTERVAL
        if self.algorithm is Algorithm.GCRA:
            if self.burst is not None and requests:
                capacity = self.burst
            # A limit that admits nothing has no emission interval; its whole period serves as well as any.
            divisor = gcd(period_us, requests) if requests else 1
            interval = EmissionInterval(period_us // divisor, requests // divisor or 1)
        object.__setattr__(self, "period_us", period_us)
        object.__setattr__(self, "capacity", capacity)
        object.__setattr__(self, "emission_interval", interval)

    def __hash__(self) -> int:
        return self._hash or self._make_hash()

    def _make_hash(self) -> int:
        """Worked out when it is first asked for, for of very many limits most are never asked for theirs."""
        values = (
            self.requests_per_unit,
            self.period_us,
            self.algorithm,
            self.count_denied,
            self.name,
            self.replaces,
            self.burst,
            self.unlimited,
            self.on_store_failure,
        )
        object.__setattr__(self, "_hash", hash(values))
        return self._hash

    def __str__(self) -> str:
        if self.unlimited:
            return "unlimited"
        return f"{self.requests_per_unit} per {self.period}"

    @property
    def quantum_us(self) -> int:
        """A sliding window's unit of time: exact up to 10,000 requests, a thousandth of the window above.

        Hits are held until the end of the unit that they fall into, so that no window ever holds too many: for up to a
        thousandth of the window too long.
        """
        return 1 if self.requests_per_unit <= MAX_EXACT else max(self.period_us // 1000, 1)

    @property
    def period(self) -> str:
        """`minute`, `15 minutes`."""
        return str(self.unit) if self.unit_multiplier == 1 else f"{self.unit_multiplier} {self.unit}s"


@dataclass(frozen=True, slots=True)
class Tier:
    """A named limit that rules refer to, of a file's `tiers`; the limit's name is the tier's.

    A key's tier is `Rule.tier` of the rule that its descriptor hits. A request's is the first of its descriptors' tiers
    whose limit nothing replaced.
    """

    name: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class Rule:
    """One descriptor of the config: it matches an entry by its `key`, and by its value as `kind` says.

    `value` is the value, pattern, regex or hex digest to match, None for any; `values` are those of a list, or networks
    or first and end (excluded) of a range. `limits`, which must all admit, apply to a request's descriptor that
    ends here; `rules` match the entry after this one. `tier` is the name of the tier that the limit came from, and
    `place` where the rule is in its file. The rest is as in envoyproxy/ratelimit; `metadata` is JSON's data. Whether
    its values are shown only masked depends on its domain: `Domain.secret`.
    """

    key: str
    _: KW_ONLY
    value: str | None = None
    kind: Kind = Kind.ANY
    values: tuple[str, ...] | tuple[int, int] = ()
    limits: tuple[Limit, ...] = ()
    tier: str | None = None
    rules: tuple["Rule", ...] = ()
    place: Place = NOWHERE
    shadow_mode: bool = False
    quota_mode: bool = False
    share_threshold: bool = False
    detailed_metric: bool = False
    value_to_metric: bool = False
    metadata: Mapping[str, Any] | None = None


FLAGS = tuple(each.name for each in fields(Rule) if each.type is bool)
CARRIED = (*FLAGS, "metadata")
"""What a descriptor of the config and its rule both have, under one name and with one meaning."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The rules for one domain of requests, from `files`.

    `labels` are entry keys that label the metrics and limit nothing. `algorithm`, `count_denied` and
    `on_store_failure` (None: the service's setting) hold for limits that a request brings with it. `secret` are the
    keys whose values are shown only masked. With `together`, all counters of a request lie on one shard. `digest` is
    the SHA-256 of its files' texts.
    """

    name: str
    _: KW_ONLY
    rules: tuple[Rule, ...] = ()
    tiers: tuple[Tier, ...] = ()
    labels: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    count_denied: bool = True
    on_store_failure: OnStoreFailure | None = None
    secret: SecretKeys = NAMED_SO
    together: bool = False
    digest: str = ""

    def is_label(self, entries: Sequence[tuple[str, str]]) -> bool:
        """Whether a descriptor of these entries only labels the metrics."""
        return len(entries) == 1 and entries[0][0] in self.labels


def walk(rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules and all that are under them, outer before inner."""
    pending = list(rules)[::-1]
    while pending:
        rule = pending.pop()
        yield rule
        pending.extend(reversed(rule.rules))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All domains of a config, by name; `warnings` are what in its files looks like a mistake.

    `problems` are why the rules of the `retained` domains are those of an earlier reading.
    """

    domains: Mapping[str, Domain] = field(default_factory=dict)
    _: KW_ONLY
    warnings: tuple[Diagnostic, ...] = ()
    problems: tuple[Diagnostic, ...] = ()
    retained: frozenset[str] = frozenset()
    _digest: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __iter__(self) -> Iterator[Rule]:
        """Every rule of every domain, outer before inner."""
        return walk(rule for domain in self.domains.values() for rule in domain.rules)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def digest(self) -> str:
        """The same for all who have the same rules, 12 hexadecimal digits; made once, for there may be many domains."""
        if not self._digest:
            parts = sorted(f"{name}\0{domain.digest}" for name, domain in self.domains.items())
            self._digest.append(sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:12])
        return self._digest[0]
