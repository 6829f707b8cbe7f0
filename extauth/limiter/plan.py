"""From a request to its plan: what it will count, before it is counted."""

from collections.abc import Callable
from dataclasses import dataclass

from extauth.errors import InvalidRequestError
from extauth.limiter.counters import Counter, Take
from extauth.limiter.request import Descriptor, Request
from extauth.limiter.verdict import Labels
from extauth.rules.matcher import Matcher
from extauth.rules.model import Rule

NameCounter = Callable[[str, Descriptor], str]
"""(domain, descriptor) → the name of its counter in the store."""

Decode = Callable[[bytes], Request]
"""A call's message → Request; raises InvalidRequestError."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request counts. `counter_of` says, for each descriptor, which of the Take's counters is its own, or None.

    `tier` is the first tier, in descriptor order, that nothing replaced.
    """

    take: Take
    counter_of: tuple[int | None, ...]
    labels: Labels
    tier: str | None


def make_plan(request: Request, matcher: Matcher, name_counter: NameCounter) -> Plan:
    """Match a request's descriptors and settle what replaces what.

    A limit is dropped if any other that matched names it in `replaces`, even one that is itself dropped: `replaces`
    does not chain, as in envoyproxy/ratelimit. The same counter twice in one request is one counter; its hits add.
    """
    if not request.domain:
        raise InvalidRequestError("the domain must not be empty")
    if not request.descriptors:
        raise InvalidRequestError("at least one descriptor is needed")
    domain = matcher.domain(request.domain)
    labels = domain.labels if domain else ()
    path = "none"
    rules: list[Rule | None] = []
    for descriptor in request.descriptors:
        if len(descriptor) == 1 and descriptor[0].key in labels:
            path = descriptor[0].value.encode("utf-8", "backslashreplace").decode()
            rules.append(None)
        else:
            rules.append(matcher.match(request.domain, descriptor))
    replaced = {name for rule in rules if rule and rule.limit for name in rule.limit.replaces}

    costs: dict[str, Counter] = {}
    names: list[str | None] = []
    tier = None
    for descriptor, rule in zip(request.descriptors, rules, strict=True):
        limit = rule.limit if rule else None
        if rule is None or limit is None or (limit.name and limit.name in replaced):
            names.append(None)
            continue
        tier = tier or rule.tier
        name = name_counter(request.domain, descriptor)
        cost = request.hits_addend + (costs[name].cost if name in costs else 0)
        costs[name] = Counter(name, limit, cost)
        names.append(name)
    index = {name: i for i, name in enumerate(costs)}
    return Plan(
        Take(tuple(costs.values())),
        tuple(None if name is None else index[name] for name in names),
        Labels(path, tier or "none"),
        tier,
    )


class Planner:
    """Plans calls from their messages' bytes, and remembers the plans: equal bytes get the same Plan object.

    The memo has two generations of at most `memo_size` plans each: when the young one is full it becomes the old one,
    whose plans are dropped unless they are asked for again. A reload swaps matcher and memo whole.
    """

    def __init__(self, matcher: Matcher, decode: Decode, name_counter: NameCounter, memo_size: int = 50_000) -> None:
        self._matcher = matcher
        self._decode = decode
        self._name_counter = name_counter
        self._memo_size = memo_size
        self._young: dict[bytes, Plan] = {}
        self._old: dict[bytes, Plan] = {}

    @property
    def matcher(self) -> Matcher:
        """The rules in force."""
        return self._matcher

    def swap(self, matcher: Matcher) -> None:
        """Put other rules in force; plans already handed out keep the rules that they began with."""
        self._matcher, self._young, self._old = matcher, {}, {}

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._young.get(message)
        if plan is None:
            plan = self._old.get(message) or make_plan(self._decode(message), self._matcher, self._name_counter)
            if len(self._young) >= self._memo_size:
                self._old, self._young = self._young, {}
            self._young[message] = plan
        return plan
