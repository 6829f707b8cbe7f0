"""From a request to its plan: what it will count, before it is counted."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

from extauth.errors import InvalidRequestError
from extauth.limiter.counters import Ask, Take
from extauth.limiter.request import Descriptor, Request
from extauth.limiter.verdict import Labels
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit

MAX_COST = 2**32 - 1
MAX_PARTS = 10_000  # of plans, in a domain
MAX_SHAPES = 10_000
MAX_REMEMBERED_BYTES = 512  # of a message or descriptor: callers can make up larger ones, which would fill the memory


_K = TypeVar("_K")
_V = TypeVar("_V")

NameCounter = Callable[[str, Descriptor], bytes]
"""(domain, descriptor) → the name of its counter in the store."""

Split = Callable[[bytes], Request]
"""A call's message → Request, with its descriptors still encoded; raises InvalidRequestError."""

DecodeDescriptor = Callable[[bytes], Descriptor]
"""An encoded descriptor → its entries; raises InvalidRequestError."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """All that many plans have in common: what they ask, what the answers look like, what the metrics call them.

    `counter_of` says, for each descriptor, which of the plan's counters is its own, or None. `tier` is the first tier,
    in descriptor order, that nothing replaced. Compared by identity.
    """

    asks: tuple[Ask, ...]
    counter_of: tuple[int | None, ...]
    tier: str | None
    labels: Labels


class Plan(Take):
    """What a request counts, and the rest of its shape. There are very many: it holds what is its own, no more."""

    __slots__ = ("shape",)

    def __init__(self, names: tuple[bytes, ...], shape: Shape) -> None:
        super().__init__(names, shape.asks)
        self.shape = shape


class Part(NamedTuple):
    """What one descriptor adds to a plan: a counter (its `name`) with its limit, or nothing; and perhaps a label."""

    name: bytes = b""
    limit: Limit | None = None
    tier: str | None = None
    path: str | None = None


class Planner:
    """Plans calls from their messages' bytes. Equal bytes get the same Plan object.

    It remembers on two floors: `memo_size` whole messages, and below them single descriptors, so that callers x
    addresses x paths do not multiply. What was learnt first is forgotten first. A reload swaps rules and memory whole.
    """

    def __init__(
        self,
        matcher: Matcher,
        split: Split,
        decode_descriptor: DecodeDescriptor,
        name_counter: NameCounter,
        memo_size: int = 100_000,
    ) -> None:
        self._split = split
        self._decode_descriptor = decode_descriptor
        self._name_counter = name_counter
        self._memo_size = memo_size
        self.swap(matcher)

    def swap(self, matcher: Matcher) -> None:
        """Put other rules in force; plans already handed out keep the rules that they began with."""
        self.matcher = matcher
        self._plans: dict[bytes, Plan] = {}
        self._parts: dict[str, dict[bytes, Part]] = {domain: {} for domain in matcher.rules.domains}
        self._shapes: dict[Hashable, Shape] = {}

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._plans.get(message)
        if plan is None:
            plan = self._make(self._split(message))
            if len(message) <= MAX_REMEMBERED_BYTES:
                _remember(self._plans, message, plan, self._memo_size)
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
        known = self._parts.get(request.domain)
        if known is None:  # no file speaks of it
            return Plan((), self._shape((), (None,) * len(request.descriptors), None, Labels()))
        parts = [self._part(request.domain, known, descriptor) for descriptor in request.descriptors]
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
        asks = tuple(map(Ask, limits, costs.values()))
        return Plan(tuple(costs), self._shape(asks, tuple(counter_of), tier, Labels(path, tier or "none")))

    def _part(self, domain: str, known: dict[bytes, Part], encoded: bytes) -> Part:
        part = known.get(encoded)
        if part is None:
            part = self._make_part(domain, self._decode_descriptor(encoded))
            if len(encoded) <= MAX_REMEMBERED_BYTES:
                _remember(known, encoded, part, MAX_PARTS)
        return part

    def _make_part(self, domain: str, descriptor: Descriptor) -> Part:
        rules = self.matcher.domain(domain)
        if rules is not None and len(descriptor) == 1 and descriptor[0].key in rules.labels:
            return Part(path=descriptor[0].value.encode("utf-8", "backslashreplace").decode())
        rule = self.matcher.match(domain, descriptor)
        if rule is None or rule.limit is None:
            return Part()
        return Part(self._name_counter(domain, descriptor), rule.limit, rule.tier)

    def _shape(
        self, asks: tuple[Ask, ...], counter_of: tuple[int | None, ...], tier: str | None, labels: Labels
    ) -> Shape:
        key = (asks, counter_of, tier, labels)
        shape = self._shapes.get(key)
        if shape is None:
            shape = Shape(asks, counter_of, tier, labels)
            _remember(self._shapes, key, shape, MAX_SHAPES)
        return shape


def _remember(memo: dict[_K, _V], key: _K, value: _V, most: int) -> None:
    if len(memo) >= most:
        for oldest in list(islice(memo, most // 64 + 1)):
            del memo[oldest]
    memo[key] = value
