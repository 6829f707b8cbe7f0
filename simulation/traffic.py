"""What callers ask for: a few limits of each algorithm and policy, and when calls come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from extauth.limiter.counter_names import SHARDS
from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from simulation.layout import Layout

DEADLINES_S = (0.003, 0.01, 0.015, 0.04, 0.15, float("inf"))
SERVICE_POLICY = OnStoreFailure.LOCAL


class Call(NamedTuple):
    """`calls` equal calls to a replica that arrive together at `at_s`, each with this time to its deadline."""

    at_s: float
    replica: int
    plan: int
    calls: int
    deadline_s: float


@dataclass(frozen=True)
class Counted:
    """A counter, as the oracles need to know it."""

    name: bytes
    limit: Limit

    @property
    def policy(self) -> OnStoreFailure:
        """What calls get without the store."""
        return policy_of(self.limit)


class _Spec(NamedTuple):
    name: bytes
    algorithm: Algorithm
    requests: int
    seconds: int
    policy: OnStoreFailure | None = None
    count_denied: bool = False
    burst: int | None = None


_LOCAL, _ALLOW, _DENY, _ERROR = (
    OnStoreFailure.LOCAL,
    OnStoreFailure.ALLOW,
    OnStoreFailure.DENY,
    OnStoreFailure.ERROR,
)

_LIMITS = {
    spec.name: Limit(
        spec.requests,
        Unit.SECOND,
        spec.algorithm,
        unit_multiplier=spec.seconds,
        count_denied=spec.count_denied,
        burst=spec.burst,
        on_store_failure=spec.policy,
    )
    for spec in (
        _Spec(b"gcra", Algorithm.GCRA, 10, 2),
        _Spec(b"gcra-odd", Algorithm.GCRA, 7, 3, _LOCAL, burst=3),
        _Spec(b"gcra-slow", Algorithm.GCRA, 12, 60),
        _Spec(b"fixed", Algorithm.FIXED_WINDOW, 12, 2),
        _Spec(b"fixed-denied", Algorithm.FIXED_WINDOW, 9, 3, count_denied=True),
        _Spec(b"sliding", Algorithm.SLIDING_WINDOW, 10, 2),
        _Spec(b"sliding-long", Algorithm.SLIDING_WINDOW, 14, 60),
        _Spec(b"deny", Algorithm.GCRA, 20, 2, _DENY),
        _Spec(b"error", Algorithm.FIXED_WINDOW, 20, 2, _ERROR),
        _Spec(b"allow", Algorithm.SLIDING_WINDOW, 6, 1, _ALLOW),
        _Spec(b"shadow", Algorithm.GCRA, 2, 2),
        _Spec(b"quota-a", Algorithm.FIXED_WINDOW, 6, 2),
        _Spec(b"quota-b", Algorithm.GCRA, 4, 2),
        _Spec(b"spent", Algorithm.GCRA, 1, 60),
        _Spec(b"own", Algorithm.GCRA, 8, 2),
        _Spec(b"own-fixed", Algorithm.FIXED_WINDOW, 7, 2),
        _Spec(b"own-sliding", Algorithm.SLIDING_WINDOW, 16, 4),
        _Spec(b"all", Algorithm.FIXED_WINDOW, 10, 2),
        _Spec(b"all-gcra", Algorithm.GCRA, 9, 2),
        _Spec(b"all-sliding", Algorithm.SLIDING_WINDOW, 10, 2),
        _Spec(b"together-a", Algorithm.GCRA, 12, 2),
        _Spec(b"together-b", Algorithm.SLIDING_WINDOW, 8, 2),
    )
}
TOGETHER = (b"together-a", b"together-b")  # on one shard, as in a domain with `together: true`

# The counters of each kind of request, each with its mode, and the cost.
_KINDS: tuple[tuple[tuple[tuple[bytes, Mode], ...], int], ...] = (
    (((b"gcra", Mode.ENFORCED),), 1),
    (((b"gcra", Mode.ENFORCED),), 3),
    (((b"gcra-odd", Mode.ENFORCED),), 1),
    (((b"gcra-slow", Mode.ENFORCED),), 2),
    (((b"fixed", Mode.ENFORCED),), 1),
    (((b"fixed", Mode.ENFORCED), (b"gcra-slow", Mode.ENFORCED)), 2),
    (((b"fixed-denied", Mode.ENFORCED),), 1),
    (((b"sliding", Mode.ENFORCED),), 1),
    (((b"sliding", Mode.ENFORCED), (b"fixed", Mode.ENFORCED)), 1),
    (((b"sliding-long", Mode.ENFORCED), (b"shadow", Mode.SHADOW)), 1),
    (((b"deny", Mode.ENFORCED),), 1),
    (((b"error", Mode.ENFORCED),), 1),
    (((b"allow", Mode.ENFORCED),), 1),
    (((b"quota-a", Mode.QUOTA), (b"quota-b", Mode.QUOTA)), 1),
    (((b"deny", Mode.ENFORCED), (b"gcra", Mode.ENFORCED)), 1),
    (((b"error", Mode.ENFORCED), (b"sliding", Mode.ENFORCED)), 1),
)

# Those of a cluster, too: callers' own limits, which are lower, before limits that they share. One caller is used up
# all the time, and others, who have room, use the shared limits up.
_KINDS_OF_CLUSTERS: tuple[tuple[tuple[tuple[bytes, Mode], ...], int], ...] = (
    (((b"spent", Mode.ENFORCED), (b"all", Mode.ENFORCED)), 1),
    (((b"all-gcra", Mode.ENFORCED), (b"spent", Mode.ENFORCED)), 1),
    (((b"own", Mode.ENFORCED), (b"all", Mode.ENFORCED)), 1),
    (((b"own-fixed", Mode.ENFORCED), (b"all", Mode.ENFORCED)), 2),
    (((b"all", Mode.ENFORCED), (b"own-sliding", Mode.ENFORCED)), 1),
    (((b"own", Mode.ENFORCED), (b"all-gcra", Mode.ENFORCED)), 2),
    (((b"own-sliding", Mode.ENFORCED), (b"all-gcra", Mode.ENFORCED)), 1),
    (((b"own-fixed", Mode.ENFORCED), (b"all-sliding", Mode.ENFORCED)), 1),
    (((b"own", Mode.ENFORCED), (b"all-sliding", Mode.ENFORCED), (b"all", Mode.ENFORCED)), 1),
    (((b"own-sliding", Mode.ENFORCED), (b"gcra", Mode.ENFORCED), (b"all-sliding", Mode.ENFORCED)), 1),
    (((b"sliding", Mode.ENFORCED), (b"own", Mode.ENFORCED), (b"fixed", Mode.ENFORCED)), 1),
    (((b"fixed-denied", Mode.ENFORCED), (b"own", Mode.ENFORCED)), 1),
    (((b"own", Mode.ENFORCED), (b"deny", Mode.ENFORCED)), 3),
    (((b"all-sliding", Mode.ENFORCED), (b"error", Mode.ENFORCED)), 1),
    (((b"allow", Mode.ENFORCED), (b"all", Mode.ENFORCED)), 1),
    (((b"shadow", Mode.SHADOW), (b"own-sliding", Mode.ENFORCED)), 1),
    (((b"all", Mode.ENFORCED), (b"own", Mode.REPORT_ONLY)), 1),
    (((b"quota-a", Mode.QUOTA), (b"quota-b", Mode.QUOTA), (b"all-gcra", Mode.ENFORCED)), 1),
    (((b"all", Mode.ENFORCED),), 1),
    (((b"all-gcra", Mode.ENFORCED),), 1),
    (((b"together-a", Mode.ENFORCED), (b"together-b", Mode.ENFORCED)), 1),
)


def policy_of(limit: Limit) -> OnStoreFailure:
    """What calls get without the store."""
    return limit.on_store_failure or SERVICE_POLICY


def limits(layout: Layout) -> dict[bytes, Limit]:
    """The limit of each counter, by its name in the store."""
    return {layout.name(name): limit for name, limit in _LIMITS.items()}


class Kind:
    """A kind of request; `enforced` are the counters whose limits each bind it, and `policies` are those of these.

    The counters of one that is `spread` lie on several shards, `steps` of them, and `masters` have any of them.
    """

    def __init__(self, counters: tuple[tuple[bytes, Mode], ...], cost: int, layout: Layout) -> None:
        checks = tuple(LimitCheck(_LIMITS[name], cost, mode) for name, mode in counters)
        template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
        names = tuple(layout.name(name) for name, _ in counters)
        self.plan = Plan(names, template, Tally(()))
        self.cost = cost
        self.enforced = [
            Counted(name, check.limit) for name, check in zip(names, checks, strict=True) if check.mode is Mode.ENFORCED
        ]
        self.policies = {counted.policy for counted in self.enforced}
        self.steps = len(set(map(layout.shard_of, names)))
        self.spread = self.steps > 1
        self.masters = frozenset(map(layout.master_of, names))

    def uncounted(self, instants: Sequence[object]) -> list[Counted]:
        """The counters that bind it and that have no instant; all of them where there are no instants."""
        return [each for i, each in enumerate(self.enforced) if not instants or instants[i] is None]

    def __str__(self) -> str:
        return f"{b'+'.join(self.plan.names).decode()} x{self.cost}"


def kinds(layout: Layout) -> list[Kind]:
    """Each kind of request, with a plan of its own."""
    all_kinds = (*_KINDS, *_KINDS_OF_CLUSTERS) if layout.is_cluster else _KINDS
    return [Kind(counters, cost, layout) for counters, cost in all_kinds]


def layout_of(random: Random) -> Layout:
    """A cluster whose counters lie on a few of its shards."""
    used = random.sample(range(SHARDS), random.randint(3, 6))
    shards = {name: random.choice(used) for name in _LIMITS}
    return Layout(random.choice((2, 3)), {**shards, **dict.fromkeys(TOGETHER, random.choice(used))})


def calls_of(random: Random, replicas: int, duration_s: float) -> list[Call]:
    """When which calls come: steadily, some at once, and never none for long."""
    wanted = random.sample(range(len(_KINDS)), random.randint(1, 6))
    return sorted(call for replica in range(replicas) for call in _calls_to(random, replica, wanted, duration_s))


def calls_to_cluster(random: Random, replicas: int, duration_s: float) -> list[Call]:
    """The same, with kinds of clusters among them."""
    first = len(_KINDS)
    wanted = [
        *random.sample(range(first), random.randint(0, 3)),
        *random.sample(range(first, first + len(_KINDS_OF_CLUSTERS)), random.randint(2, 7)),
    ]
    return sorted(call for replica in range(replicas) for call in _calls_to(random, replica, wanted, duration_s))


def _calls_to(random: Random, replica: int, wanted: Sequence[int], duration_s: float) -> Iterator[Call]:
    favourites = random.sample(wanted, random.randint(1, len(wanted)))
    at_s = 0.0
    while at_s < duration_s:
        burst = random.random()
        calls = random.randint(10, 80) if burst < 0.06 else random.randint(2, 8) if burst < 0.3 else 1
        yield Call(at_s, replica, random.choice(favourites), calls, random.choice(DEADLINES_S))
        at_s += random.choice((0.0005, 0.02, 0.04, 0.08, 0.1))
