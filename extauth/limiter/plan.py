"""From a request to its plan: what it will count, before it is counted.

What a request of several limits means. Each descriptor hits at most one rule, whose limits apply, but for those that
another limit that applies names in `replaces`. The request is admitted if all enforced limits have room for its hits
and, where quotas apply, one of these has: then each takes its hits, shadowed limits and quotas only if they have room.
A request that is denied takes nothing, anywhere, but in limits with `count_denied`. The same counter twice in one
request is one counter: its hits add, and if the descriptors bring different limits with them, each of these is checked
against it.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from extauth.errors import InvalidRequestError
from extauth.limiter.counters import Ask, Mode, Take
from extauth.limiter.request import Descriptor, Entry, Override, Request
from extauth.limiter.verdict import Labels
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Algorithm, Domain, Kind, Limit, Rule, mask

# More than any limit admits, as what is cut off must be: of 2**32 - 1 hits a limit may have room. Exact in a double.
MAX_COST = 2**53 - 1
MAX_PARTS = 10_000  # of plans, in a domain
MAX_SHAPES = 10_000
MAX_FACTS = 100_000
MAX_REMEMBERED_COUNTERS = 8
MAX_REMEMBERED_BYTES = 512  # of a message or descriptor: callers can make up larger ones, which would fill the memory
# A counter's part of a run of take.lua, rounded up; a sliding window's is that of a long log that is searched.
COSTS_US: Final = {Algorithm.GCRA: 5, Algorithm.FIXED_WINDOW: 5, Algorithm.SLIDING_WINDOW: 20}
UNLIMITED_AT: Final = (-1,)  # stands for a descriptor's counters where it is unlimited

NOTHING: Final[frozenset[str]] = frozenset()

_K = TypeVar("_K")
_V = TypeVar("_V")

NameCounter = Callable[[str, Sequence[tuple[str, str]], Sequence[str | None], str], bytes]
"""(domain, entries, an entry's shared pattern or None, which of the rule's limits) → the counter's name."""

Split = Callable[[bytes], Request]
"""A call's message → Request, with its descriptors still encoded; raises InvalidRequestError."""

DecodeDescriptor = Callable[[bytes], Descriptor]
"""An encoded descriptor → its content; raises InvalidRequestError."""


class Switches(NamedTuple):
    """What holds for all requests.

    `shadow_mode`: nothing is denied. `quota_mode`: all limits are quotas. `metadata`: answers carry them.
    """

    shadow_mode: bool = False
    quota_mode: bool = False
    metadata: bool = False


NO_SWITCHES = Switches()
_ONLY = ("",)
_ENFORCED = (Mode.ENFORCED,) * 8


class Told(NamedTuple):
    """What an answer's metadata tell: of the request, and by descriptor of the rules."""

    request: Mapping[str, Any]
    metadata: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """All that many plans have in common: what they ask, what the answers look like, what the metrics call them.

    `counters_of` says, for each descriptor, which of the plan's counters are its own: none, or UNLIMITED_AT. `rules`
    name the rule of each counter. `tier` is the first tier, in descriptor order, that nothing replaced. `cost_us` is
    about how long Redis takes to count one call. Compared by identity.
    """

    asks: tuple[Ask, ...]
    counters_of: tuple[tuple[int, ...], ...]
    tier: str | None
    labels: Labels
    rules: tuple[str, ...] = ()
    told: Told | None = None
    cost_us: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost_us", sum(COSTS_US[ask.limit.algorithm] for ask in self.asks))

    @property
    def blocks(self) -> bool:
        """Whether any of the limits may deny."""
        return any(ask.mode is Mode.ENFORCED or ask.mode is Mode.QUOTA for ask in self.asks)


class Plan(Take):
    """What a request counts, and the rest of its shape. There are very many: it holds what is its own, no more."""

    __slots__ = ("shape",)

    def __init__(self, names: tuple[bytes, ...], shape: Shape) -> None:
        super().__init__(names, shape.asks)
        self.shape = shape


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a descriptor adds to a plan, whatever its values: one object for all descriptors that hit one rule.

    `hits` is None where the request's own count. The rest is the rule's; `path` a label's. Compared by identity.
    """

    limits: tuple[Limit, ...] = ()
    tier: str | None = None
    path: str | None = None
    hits: int | None = None
    negative: bool = False
    shadow_mode: bool = False
    quota_mode: bool = False
    rule: str = ""
    metadata: Mapping[str, Any] | None = None
    replaces: frozenset[str] = NOTHING


class Part(NamedTuple):
    """What one descriptor adds to a plan: counters, one a limit, or none."""

    names: tuple[bytes, ...]
    facts: Facts


NO_PART = Part((), Facts())


class Outline(NamedTuple):
    """The plan of all requests whose parts have the same facts: its shape, and where its counters' names stand.

    `places` are (part, name in it).
    """

    shape: Shape
    places: tuple[tuple[int, int], ...]


class _Draft:
    """What a plan's counters are, as they are found: names with their costs, and the limits that each is held to.

    `limits` say, by counter and limit, the mode and the rule; `own`, by descriptor, which of these are its own.
    """

    __slots__ = ("costs", "limits", "own", "replaced")

    def __init__(self, replaced: frozenset[str]) -> None:
        self.replaced = replaced
        self.costs: dict[bytes, int] = {}
        self.limits: dict[bytes, dict[Limit, tuple[Mode, str]]] = {}
        self.own: list[list[tuple[bytes, Limit]] | None] = []

    def add(self, part: Part, mode: Mode, hits: int) -> bool:
        """Add the part's counters but for limits that are replaced; returns whether there are any."""
        costs, facts = self.costs, part.facts
        own: list[tuple[bytes, Limit]] = []
        for name, limit in zip(part.names, facts.limits, strict=True):
            if limit.name and limit.name in self.replaced:
                continue
            held_to = self.limits.setdefault(name, {})
            if limit not in held_to:
                held_to[limit] = (Mode.QUOTA_TOO if mode is Mode.QUOTA and own else mode), facts.rule
            own.append((name, limit))
            costs[name] = costs.get(name, 0) + (-hits if facts.negative else hits)
        self.own.append(own)
        return bool(own)

    def names(self) -> tuple[bytes, ...]:
        """The counters' names, one an ask."""
        return tuple([name for name, limits in self.limits.items() for _ in limits])

    def finish(self) -> tuple[tuple[Ask, ...], tuple[tuple[int, ...], ...], tuple[str, ...]]:
        """The asks, by descriptor which of them are its own, and by ask the rule: as in a Shape."""
        asks: list[Ask] = []
        rules: list[str] = []
        at: dict[tuple[bytes, Limit], int] = {}
        for name, held_to in self.limits.items():
            cost = max(min(self.costs[name], MAX_COST), -MAX_COST)
            for limit, (mode, rule) in held_to.items() if len(held_to) == 1 else _in_order(held_to):
                at[name, limit] = len(asks)
                asks.append(Ask(limit, cost, mode))
                rules.append(rule)
        counters_of = [UNLIMITED_AT if own is None else tuple([at[each] for each in own]) for own in self.own]
        return tuple(asks), tuple(counters_of), tuple(rules)


def _in_order(held_to: Mapping[Limit, tuple[Mode, str]]) -> list[tuple[Limit, tuple[Mode, str]]]:
    """Several limits of one counter: last the one that decides, in whose terms the counter is kept.

    That is the smallest, which denies first and drains slowest. Of those that are not enforced it is the largest, which
    goes on counting where the others have no room left.
    """
    enforced = all(mode is Mode.ENFORCED for mode, _ in held_to.values())
    return sorted(held_to.items(), key=lambda each: each[0].capacity, reverse=enforced)


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
        *,
        switches: Switches = NO_SWITCHES,
        memo_size: int = 100_000,
    ) -> None:
        self._split = split
        self._decode_descriptor = decode_descriptor
        self._name_counter = name_counter
        self._switches = switches
        self._memo_size = memo_size
        self.swap(matcher)

    def swap(self, matcher: Matcher) -> None:
        """Put other rules in force; plans already handed out keep the rules that they began with."""
        self.matcher = matcher
        self._plans: dict[bytes, Plan] = {}
        self._parts: dict[str, dict[bytes, Part]] = {domain: {} for domain in matcher.rules.domains}
        self._outlines: dict[Hashable, Outline] = {}
        self._shapes: dict[Hashable, Shape] = {}  # of many rules, most are alike
        # By the identity of Matches, which the matcher keeps, and by what a descriptor says of hits.
        self._facts: dict[tuple[int, int | None, bool], Facts] = {}

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._plans.get(message)
        if plan is None:
            plan = self._make(self._split(message))
            if len(message) <= MAX_REMEMBERED_BYTES and len(plan.names) <= MAX_REMEMBERED_COUNTERS:
                _remember(self._plans, message, plan, self._memo_size)
        return plan

    def _make(self, request: Request) -> Plan:
        """Settle what replaces what.

        A limit is dropped if any other that matched names it in `replaces`, even one that is itself dropped: `replaces`
        does not chain, as in envoyproxy/ratelimit. Nor is an unlimited one ever dropped.
        """
        if not request.domain:
            raise InvalidRequestError("the domain must not be empty")
        if not request.descriptors:
            raise InvalidRequestError("at least one descriptor is needed")
        known = self._parts.get(request.domain)
        if known is None:  # no file speaks of it
            parts = [NO_PART] * len(request.descriptors)
        else:
            parts = [self._part(request.domain, known, descriptor) for descriptor in request.descriptors]
        key = (request.hits_addend, *[part.facts for part in parts])
        outline = self._outlines.get(key)
        if outline is None or self._switches.metadata:
            return self._draw(request, parts, key)
        names = tuple([parts[i].names[j] for i, j in outline.places])
        if len(names) > 1 and len(set(names)) < len(names):
            return self._draw(request, parts, None)
        return Plan(names, outline.shape)

    def _draw(self, request: Request, parts: Sequence[Part], key: Hashable) -> Plan:
        """Work a plan out; `key` is what to remember its outline by, if no counter comes twice in it."""
        facts = [part.facts for part in parts]
        replaced = NOTHING.union(*[each.replaces for each in facts])
        draft = _Draft(replaced)
        path, tier = "none", None
        for part, mode in zip(parts, self._modes(facts, replaced), strict=True):
            own = part.facts
            if not own.limits:
                path = own.path or path
                draft.own.append([])
            elif own.limits[0].unlimited:
                tier = tier or own.tier
                draft.own.append(None)
            elif draft.add(part, mode, request.hits_addend if own.hits is None else own.hits):
                tier = tier or own.tier
        asks, counters_of, rules = draft.finish()
        labels = Labels(path, tier or "none")
        if self._switches.metadata:
            told = self._told(request, facts, counters_of, tier)
            return Plan(draft.names(), Shape(asks, counters_of, tier, labels, rules, told))
        alike = (asks, counters_of, tier, labels, rules)
        shape = self._shapes.get(alike)
        if shape is None:
            shape = Shape(*alike)
            _remember(self._shapes, alike, shape, MAX_SHAPES)
        places = {name: (i, j) for i, part in reversed(list(enumerate(parts))) for j, name in enumerate(part.names)}
        if key is not None and sum(map(len, counters_of)) - counters_of.count(UNLIMITED_AT) == len(draft.costs):
            outline = Outline(shape, tuple(places[name] for name in draft.costs))
            _remember(self._outlines, key, outline, MAX_SHAPES)
        return Plan(draft.names(), shape)

    def _modes(self, parts: Sequence[Facts], replaced: frozenset[str]) -> Sequence[Mode]:
        """Each part's mode. A quota that always passes keeps the others from ever denying."""
        everywhere = self._switches.quota_mode
        if not everywhere and not self._switches.shadow_mode:
            for part in parts:
                if part.shadow_mode or part.quota_mode:
                    break
            else:
                return _ENFORCED[: len(parts)] if len(parts) <= len(_ENFORCED) else [Mode.ENFORCED] * len(parts)
        passes = False
        modes = []
        for part in parts:
            applies = any(not limit.unlimited and not (limit.name and limit.name in replaced) for limit in part.limits)
            quota = everywhere or (part.quota_mode and applies)
            if part.limits and part.limits[0].unlimited:
                quota = False
            passes = passes or (quota and (part.shadow_mode or not applies))
            if self._switches.shadow_mode:
                modes.append(Mode.SHADOW if part.shadow_mode else Mode.FREE)
            elif part.shadow_mode:
                modes.append(Mode.SHADOW)
            else:
                modes.append(Mode.QUOTA if quota else Mode.ENFORCED)
        return [Mode.FREE if mode is Mode.QUOTA and passes else mode for mode in modes]

    def _part(self, domain: str, known: dict[bytes, Part], encoded: bytes) -> Part:
        part = known.get(encoded)
        if part is None:
            part = self._make_part(domain, self._decode_descriptor(encoded))
            if len(encoded) <= MAX_REMEMBERED_BYTES:
                _remember(known, encoded, part, MAX_PARTS)
        return part

    def _make_part(self, domain: str, descriptor: Descriptor) -> Part:
        rules = self.matcher.rules.domains[domain]
        entries = descriptor.entries
        if rules.is_label(entries):
            return Part((), Facts(path=entries[0].value.encode("utf-8", "backslashreplace").decode()))
        hits, negative = descriptor.hits_addend, descriptor.is_negative_hits
        if descriptor.limit is not None:
            limit = _override(rules, descriptor.limit)
            # Not by its number, or who can move that would begin anew with each one.
            name = self._name_counter(domain, entries, (), f"override-{limit.period_us // 1_000_000}")
            called = _path(domain, ((entry.key, None) for entry in entries))
            return Part((name,), Facts((limit,), hits=hits, negative=negative, rule=called))
        match = self.matcher.match(domain, entries)
        if match is None or not match.rule.limits:
            return NO_PART
        ordinals = which(match.rule.limits) if len(match.rule.limits) > 1 else _ONLY
        names = tuple([self._name_counter(domain, entries, match.shared, ordinal) for ordinal in ordinals])
        facts = self._facts.get((id(match), hits, negative))
        return Part(names, facts or self._make_facts(domain, match, entries, hits, negative=negative))

    def _make_facts(
        self, domain: str, match: Match, entries: Sequence[Entry], hits: int | None, *, negative: bool
    ) -> Facts:
        rule = match.rule
        facts = Facts(
            rule.limits,
            rule.tier,
            None,
            hits,
            negative,
            rule.shadow_mode,
            rule.quota_mode,
            metric_name(domain, match, entries),
            rule.metadata,
            frozenset(name for limit in rule.limits for name in limit.replaces),
        )
        if not rule.detailed_metric and not any(_names_values(each) for each in match.path):
            _remember(self._facts, (id(match), hits, negative), facts, MAX_FACTS)
        return facts

    def _told(
        self, request: Request, facts: Sequence[Facts], counters_of: Sequence[tuple[int, ...]], tier: str | None
    ) -> Told:
        descriptors = [_describe(self._decode_descriptor(encoded)) for encoded in request.descriptors]
        told: dict[str, Any] = {"domain": request.domain, "descriptors": descriptors}
        if request.hits_addend != 1:
            told["hitsAddend"] = request.hits_addend
        if tier is not None:
            told["tier"] = tier
        applied = zip(facts, counters_of, strict=True)
        return Told(told, tuple(each.metadata if own and own is not UNLIMITED_AT else None for each, own in applied))


def _names_values(rule: Rule) -> bool:
    return rule.value_to_metric or rule.kind in {Kind.VALUES, Kind.REGEX, Kind.RANGE}


def metric_name(domain: str, match: Match, entries: Sequence[Entry]) -> str:
    """What the metrics call a rule.

    As in envoyproxy/ratelimit: DOMAIN.KEY_VALUE.KEY, and so on. Values stand in it masked, for they may be API keys;
    in clear where the file asks for it (`value_to_metric`, `detailed_metric`).
    """
    detailed = match.rule.detailed_metric
    names: list[tuple[str, str | None]] = []
    for entry, rule, shared in zip(entries, match.path, match.shared, strict=True):
        if shared is not None or (rule.kind is Kind.WILDCARD and not (detailed or rule.value_to_metric)):
            names.append((entry.key, shared.rpartition("\0")[2] if shared else rule.value))
        elif detailed or rule.value_to_metric:
            names.append((entry.key, entry.value))
        else:
            names.append((entry.key, None if rule.kind is Kind.ANY else mask(entry.value)))
    return _path(domain, names)


def _path(domain: str, names: Iterable[tuple[str, str | None]]) -> str:
    text = ".".join([domain, *(f"{key}_{value}" if value else key for key, value in names)])
    return text.encode("utf-8", "backslashreplace").decode()


def which(limits: Sequence[Limit]) -> list[str]:
    """Names that tell the limits of one rule apart: the period in seconds, and of several of one period the place."""
    names: list[str] = []
    for limit in limits:
        name = str(limit.period_us // 1_000_000)
        again = sum(1 for other in names if other.partition(".")[0] == name)
        names.append(f"{name}.{again + 1}" if again else name)
    return names


def _override(rules: Domain, override: Override) -> Limit:
    return Limit(override.requests_per_unit, override.unit, rules.algorithm, rules.count_denied)


def _describe(descriptor: Descriptor) -> dict[str, Any]:
    told: dict[str, Any] = {"entries": [f"{entry.key}={entry.value}" for entry in descriptor.entries]}
    if descriptor.limit is not None:
        told["limit"] = f"requests_per_unit:{descriptor.limit.requests_per_unit} unit:{descriptor.limit.unit.name}"
    if descriptor.hits_addend is not None:
        told["hitsAddend"] = descriptor.hits_addend
    return told


def _remember(memo: dict[_K, _V], key: _K, value: _V, most: int) -> None:
    if len(memo) >= most:
        for oldest in list(islice(memo, most // 64 + 1)):
            del memo[oldest]
    memo[key] = value
