"""What callers ask for: a few limits of each algorithm and policy, and when calls come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit

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

LIMITS = {
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
    )
}

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


class Kind:
    """A kind of request; `enforced` are the counters whose limits each bind it, and `policies` are those of these."""

    def __init__(self, counters: tuple[tuple[bytes, Mode], ...], cost: int) -> None:
        checks = tuple(LimitCheck(LIMITS[name], cost, mode) for name, mode in counters)
        template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
        self.plan = Plan(tuple(name for name, _ in counters), template, Tally(()))
        self.cost = cost
        self.enforced = [Counted(name, LIMITS[name]) for name, mode in counters if mode is Mode.ENFORCED]
        self.policies = {counted.limit.on_store_failure or SERVICE_POLICY for counted in self.enforced}

    def __str__(self) -> str:
        return f"{b'+'.join(self.plan.names).decode()} x{self.cost}"


def kinds() -> list[Kind]:
    """Each kind of request, with a plan of its own."""
    return [Kind(counters, cost) for counters, cost in _KINDS]


def calls_of(random: Random, replicas: int, duration_s: float) -> list[Call]:
    """When which calls come: steadily, some at once, and never none for long."""
    wanted = random.sample(range(len(_KINDS)), random.randint(1, 6))
    return sorted(call for replica in range(replicas) for call in _calls_to(random, replica, wanted, duration_s))


def _calls_to(random: Random, replica: int, wanted: Sequence[int], duration_s: float) -> Iterator[Call]:
    favourites = random.sample(wanted, random.randint(1, len(wanted)))
    at_s = 0.0
    while at_s < duration_s:
        burst = random.random()
        calls = random.randint(10, 80) if burst < 0.06 else random.randint(2, 8) if burst < 0.3 else 1
        yield Call(at_s, replica, random.choice(favourites), calls, random.choice(DEADLINES_S))
        at_s += random.choice((0.0005, 0.02, 0.04, 0.08, 0.1))
