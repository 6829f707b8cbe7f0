"""From a request to its plan: what it will count, before it is counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from extauth.errors import InvalidRequestError
from extauth.limiter.counters import Counter, Take
from extauth.limiter.request import Descriptor, Request
from extauth.limiter.verdict import Labels
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit

MAX_COST = 2**32 - 1
MAX_REMEMBERED_BYTES = 512  # of a message or descriptor: callers can make up larger ones, which would fill the memory


NameCounter = Callable[[str, Descriptor], bytes]
"""(domain, descriptor) → the name of its counter in the store."""

Split = Callable[[bytes], Request]
"""A call's message → Request, with its descriptors still encoded; raises InvalidRequestError."""

DecodeDescriptor = Callable[[bytes], Descriptor]
"""An encoded descriptor → its entries; raises InvalidRequestError."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What the answers to many plans have in common; one object for all that are alike.

    `counter_of` says, for each descriptor, which of the Take's counters is its own, or None. `limits` are those of the
    counters. `tier` is the first tier, in descriptor order, that nothing replaced.
    """

    counter_of: tuple[int | None, ...]
    limits: tuple[Limit, ...]
    tier: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a request counts, what its answer looks like, and what the metrics call it. Compared by identity."""

    take: Take
    shape: Shape
    labels: Labels


class Part(NamedTuple):
    """What one descriptor adds to a plan: a counter (its `name`) with its limit, or nothing; and perhaps a label."""

    name: bytes = b""
    limit: Limit | None = None
    tier: str | None = None
    path: str | None = None


class Planner:
    """Plans calls from their messages' bytes. Equal bytes get the same Plan object.

    It remembers on two floors: whole messages, and below them single descriptors, so that callers x addresses x paths
    do not multiply. Each floor has two generations, of at most `memo_size` plans and a quarter as many parts: when the
    young one is full it becomes the old one, whose content is dropped unless it is asked for again. A reload swaps
    rules and memory whole.
    """

    def __init__(
        self,
        matcher: Matcher,
        split: Split,
        decode_descriptor: DecodeDescriptor,
        name_counter: NameCounter,
        memo_size: int = 50_000,
    ) -> None:
        self._split = split
        self._decode_descriptor = decode_descriptor
        self._name_counter = name_counter
        self._memo_size = memo_size
        self._parts_size = max(1, memo_size // 4)
        self.swap(matcher)

    def swap(self, matcher: Matcher) -> None:
        """Put other rules in force; plans already handed out keep the rules that they began with."""
        self.matcher = matcher
        self._plans: dict[bytes, Plan] = {}
        self._old_plans: dict[bytes, Plan] = {}
        self._parts: dict[tuple[str, bytes], Part] = {}
        self._old_parts: dict[tuple[str, bytes], Part] = {}
        self._shapes: dict[tuple[int | Limit | str | None, ...], Shape] = {}

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._plans.get(message)
        if plan is None:
            plan = self._old_plans.get(message) or self._make(self._split(message))
            if len(message) <= MAX_REMEMBERED_BYTES:
                if len(self._plans) >= self._memo_size:
                    self._old_plans, self._plans = self._plans, {}
                self._plans[message] = plan
        return plan

    def _make(self, request: Request) -> Plan:
        """Settle what replaces what.

        A limit is dropped if any other that matched names it in `replaces`, even one that is itself dropped: `replaces`
        does not chain, as in envoyproxy/ratelimit. The same counter twice in one request is one counter; its hits add.
        """
        if not request.domain:
            raise InvalidRequestError("the domain must not be empty")
        if not request.descriptors:
            raise InvalidRequestError("at least one descriptor is needed")
        parts = [self._part(request.domain, descriptor) for descriptor in request.descriptors]
        replaced = {name for part in parts if part.limit for name in part.limit.replaces}
        costs: dict[bytes, int] = {}
        limits: list[Limit] = []
        counter_of: list[int | None] = []
        path, tier = "none", None
        for part in parts:
            path = part.path or path
            limit = part.limit
            if limit is None or (limit.name and limit.name in replaced):
                counter_of.append(None)
                continue
            tier = tier or part.tier
            if part.name not in costs:
                counter_of.append(len(costs))
                limits.append(limit)
            else:
                counter_of.append(list(costs).index(part.name))
            costs[part.name] = min(costs.get(part.name, 0) + request.hits_addend, MAX_COST)
        counters = tuple(Counter(name, limit, cost) for (name, cost), limit in zip(costs.items(), limits, strict=True))
        return Plan(Take(counters), self._shape(counter_of, limits, tier), Labels(path, tier or "none"))

    def _part(self, domain: str, encoded: bytes) -> Part:
        key = (domain, encoded)
        part = self._parts.get(key)
        if part is None:
            part = self._old_parts.get(key) or self._make_part(domain, self._decode_descriptor(encoded))
            if len(encoded) <= MAX_REMEMBERED_BYTES:
                if len(self._parts) >= self._parts_size:
                    self._old_parts, self._parts = self._parts, {}
                self._parts[key] = part
        return part

    def _make_part(self, domain: str, descriptor: Descriptor) -> Part:
        rules = self.matcher.domain(domain)
        if rules is not None and len(descriptor) == 1 and descriptor[0].key in rules.labels:
            return Part(path=descriptor[0].value.encode("utf-8", "backslashreplace").decode())
        rule = self.matcher.match(domain, descriptor)
        if rule is None or rule.limit is None:
            return Part()
        return Part(self._name_counter(domain, descriptor), rule.limit, rule.tier)

    def _shape(self, counter_of: Sequence[int | None], limits: Sequence[Limit], tier: str | None) -> Shape:
        key = (*counter_of, *limits, tier)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(tuple(counter_of), tuple(limits), tier)
        return shape
