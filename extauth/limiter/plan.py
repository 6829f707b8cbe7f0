"""From a request to its plan: what it will count, before it is counted.

What a request of several limits means. Each descriptor hits at most one rule, whose limits apply, but for those that
another limit that applies names in `replaces`. The request is admitted if all enforced limits have room for its hits
and, where quotas apply, one of these has: then each takes its hits, shadowed limits and quotas only if they have room.
A request that is denied takes nothing, anywhere, but in limits with `count_denied`. The same counter twice in one
request is one counter: its hits add, and if the descriptors bring different limits with them, each of these is checked
against it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.limiter.counters import Ask, Mode, Take
from extauth.limiter.memo import Memo
from extauth.limiter.verdict import Labels
from extauth.rls.request import Descriptor, Entry, Override, Request
from extauth.rules.masking import NAMED_SO
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Algorithm, Limit
from extauth.rules.rule_names import RuleName, override_name

# More than any limit admits, as what is cut off must be: of 2**32 - 1 hits a limit may have room. Exact in a double.
MAX_COST = 2**53 - 1
PLAN_BYTES = 300  # of a plan, beside its message, its counters' names and those of rules that are its own
PART_BYTES = 400  # of a part, beside its key and its counters' names
OWN_FACTS_BYTES = 450  # of Facts that are one descriptor's own, beside their texts
PART_US = 15  # about what it takes to plan for a descriptor; for each of its entries it is 1 more
DRAW_US = 3  # and for each descriptor, where their combination is new
SCANNED_BYTES_PER_US = 500  # of a value, that one pattern is tried on
MAX_WORK_US = 7500  # for one request, of descriptors that are new: 100 of 60 entries each
MAX_PLANS_BYTES = 48 << 20
MAX_PARTS_BYTES = 12 << 20  # of all domains together,
MIN_PARTS_BYTES = 1 << 17  # but for each one this
MAX_OUTLINES_BYTES = 16 << 20
MAX_SHAPES_BYTES = 10 << 20
MAX_FACTS_BYTES = 4 << 20
MAX_KEY_BYTES = 512  # larger messages are not remembered whole, and larger descriptors by their hash
# A counter's part of a run of take.lua, rounded up; a sliding window's is that of a long log that is searched.
COSTS_US: Final = {Algorithm.GCRA: 5, Algorithm.FIXED_WINDOW: 5, Algorithm.SLIDING_WINDOW: 20}
UNLIMITED_AT: Final = (-1,)  # stands for a descriptor's counters where it is unlimited

NOTHING: Final[frozenset[str]] = frozenset()

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
    """All that the plans of many rules have in common: what they ask, and what the answers look like.

    `counters_of` says, for each descriptor, which of the plan's counters are its own: none, or UNLIMITED_AT. `tier` is
    the first tier, in descriptor order, that nothing replaced. `domain` is empty where no file defines it; `matched`
    says whether a rule or a limit of the request's own applied to any of the descriptors. An admitted call may be
    over a limit only if it is `soft`. `cost_us` is about how long Redis takes to count one call, `bytes` how much
    memory it takes up. Compared by identity.
    """

    asks: tuple[Ask, ...]
    counters_of: tuple[tuple[int, ...], ...]
    tier: str | None
    labels: Labels
    domain: str = ""
    matched: bool = True
    told: Told | None = None
    soft: bool = field(init=False)
    cost_us: int = field(init=False)
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "soft", any(ask.mode is not Mode.ENFORCED for ask in self.asks))
        object.__setattr__(self, "cost_us", sum(COSTS_US[ask.limit.algorithm] for ask in self.asks))
        object.__setattr__(self, "bytes", 400 + 80 * len(self.counters_of) + 160 * len(self.asks))

    @property
    def blocks(self) -> bool:
        """Whether any of the limits may deny."""
        return any(ask.mode is Mode.ENFORCED or ask.mode is Mode.QUOTA for ask in self.asks)


class Tally:
    """The rules of all plans that ask the same of them: the name of each ask's.

    `series` is for whoever counts their calls: what to count in is looked up once, and kept here.
    """

    __slots__ = ("rules", "series")

    def __init__(self, rules: tuple[RuleName, ...]) -> None:
        self.rules = rules
        self.series: Any = None

    @property
    def own_bytes(self) -> int:
        """About how many bytes the names take up that no file has."""
        return sum(len(rule.name) + 150 for rule in self.rules if not rule.in_file)


NO_TALLY = Tally(())


class Plan(Take):
    """What a request counts, and the rest of its shape. There are very many: it holds what is its own, no more."""

    __slots__ = ("cost_us", "shape", "tally")

    def __init__(self, names: tuple[bytes, ...], shape: Shape, tally: Tally = NO_TALLY) -> None:
        self.names = names
        self.asks = shape.asks
        self.shape = shape
        self.tally = tally
        self.cost_us = shape.cost_us


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What a descriptor adds to a plan, whatever its values: one object for all descriptors that hit one rule.

    `hits` is None where the request's own count. The rest is the rule's; `path` a label's. `bytes` are what it takes up
    in memory if it is not shared, but one descriptor's own. Compared by identity.
    """

    limits: tuple[Limit, ...] = ()
    tier: str | None = None
    path: str | None = None
    hits: int | None = None
    negative: bool = False
    shadow_mode: bool = False
    quota_mode: bool = False
    rule: RuleName | None = None
    metadata: Mapping[str, Any] | None = None
    replaces: frozenset[str] = NOTHING
    bytes: int = 0


class Part(NamedTuple):
    """What one descriptor adds to a plan: counters, one a limit, or none."""

    names: tuple[bytes, ...]
    facts: Facts


NO_PART = Part((), Facts())


class Outline(NamedTuple):
    """The plan of all requests whose parts have the same facts: its shape, its tally, where its counters' names stand.

    `places` are (part, name in it). `bytes` are what a plan takes up besides the text of its counters' names.
    """

    shape: Shape
    tally: Tally
    places: tuple[tuple[int, int], ...]
    bytes: int


class _Draft:
    """What a plan's counters are, as they are found: names with their costs, and the limits that each is held to.

    `limits` say, by counter and limit, the mode and the rule; `own`, by descriptor, which of these are its own.
    """

    __slots__ = ("costs", "limits", "own", "replaced")

    def __init__(self, replaced: frozenset[str]) -> None:
        self.replaced = replaced
        self.costs: dict[bytes, int] = {}
        self.limits: dict[bytes, dict[Limit, tuple[Mode, RuleName]]] = {}
        self.own: list[list[tuple[bytes, Limit]] | None] = []

    def add(self, part: Part, mode: Mode, hits: int) -> bool:
        """Add the part's counters but for limits that are replaced; returns whether there are any."""
        costs, facts = self.costs, part.facts
        own: list[tuple[bytes, Limit]] = []
        assert facts.rule is not None  # noqa: S101 - all that has limits has
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

    def finish(self) -> tuple[tuple[Ask, ...], tuple[tuple[int, ...], ...], tuple[RuleName, ...]]:
        """The asks, by descriptor which of them are its own, and by ask the rule."""
        asks: list[Ask] = []
        rules: list[RuleName] = []
        at: dict[tuple[bytes, Limit], int] = {}
        for name, held_to in self.limits.items():
            cost = max(min(self.costs[name], MAX_COST), -MAX_COST)
            for limit, (mode, rule) in held_to.items() if len(held_to) == 1 else _in_order(held_to):
                at[name, limit] = len(asks)
                asks.append(Ask(limit, cost, mode))
                rules.append(rule)
        counters_of = [UNLIMITED_AT if own is None else tuple([at[each] for each in own]) for own in self.own]
        return tuple(asks), tuple(counters_of), tuple(rules)


def _in_order(held_to: Mapping[Limit, tuple[Mode, RuleName]]) -> list[tuple[Limit, tuple[Mode, RuleName]]]:
    """Several limits of one counter: last the one that decides, in whose terms the counter is kept.

    That is the smallest, which denies first and drains slowest. Of those that are not enforced it is the largest, which
    goes on counting where the others have no room left.
    """
    enforced = all(mode is Mode.ENFORCED for mode, _ in held_to.values())
    return sorted(held_to.items(), key=lambda each: each[0].capacity, reverse=enforced)


class Planner:
    """Plans calls from their messages' bytes. Equal bytes get the same Plan object.

    It remembers on two floors: whole messages, in `plans_bytes`, and below them single descriptors, so that callers x
    addresses x paths do not multiply. All that requests can make it remember is bounded in bytes; what was learnt first
    is forgotten first. A reload swaps rules and memory whole.
    """

    def __init__(
        self,
        matcher: Matcher,
        split: Split,
        decode_descriptor: DecodeDescriptor,
        name_counter: NameCounter,
        *,
        switches: Switches = NO_SWITCHES,
        plans_bytes: int = MAX_PLANS_BYTES,
    ) -> None:
        self._split = split
        self._decode_descriptor = decode_descriptor
        self._name_counter = name_counter
        self._switches = switches
        self._plans_bytes = plans_bytes
        self.work_us = 0  # about how long what was not remembered has taken, ever
        self._most_work_us = 0  # by the end of the request that is being planned
        self.swap(matcher)

    def swap(self, matcher: Matcher) -> None:
        """Put other rules in force; plans already handed out keep the rules that they began with."""
        self.matcher = matcher
        self._plans: Memo[bytes, Plan] = Memo(self._plans_bytes)
        self._recall = self._plans.get  # the hot path: a bound method costs less
        domains = matcher.rules.domains
        share = max(MAX_PARTS_BYTES // max(len(domains), 1), MIN_PARTS_BYTES)
        self._parts: dict[str, Memo[bytes, Part]] = {domain: Memo(share) for domain in domains}
        self._outlines: Memo[tuple[Hashable, ...], Outline] = Memo(MAX_OUTLINES_BYTES)
        # Of many rules, most plans are alike.
        self._shapes: Memo[tuple[Any, ...], Shape] = Memo(MAX_SHAPES_BYTES)
        # By the identity of Matches, which the matcher keeps. Of those whose hits are the request's, one a rule.
        self._facts: dict[int, Facts] = {}
        self._facts_with_hits: Memo[tuple[int, int | None, bool], Facts] = Memo(MAX_FACTS_BYTES)

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._recall(message)
        if plan is None:
            plan, own_bytes = self._make(self._split(message))
            if len(message) <= MAX_KEY_BYTES:
                self._plans.remember(message, plan, own_bytes + len(message))
        return plan

    def _make(self, request: Request) -> tuple[Plan, int]:
        """Settle what replaces what; returns, too, how many bytes the plan takes up.

        A limit is dropped if any other that matched names it in `replaces`, even one that is itself dropped: `replaces`
        does not chain, as in envoyproxy/ratelimit. Nor is an unlimited one ever dropped.
        """
        if not request.domain:
            raise InvalidRequestError("the domain must not be empty")
        if not request.descriptors:
            raise InvalidRequestError("at least one descriptor is needed")
        self._most_work_us = self.work_us + MAX_WORK_US
        domain = request.domain
        known = self._parts.get(domain)
        if known is not None:
            parts = [known.get(encoded) or self._part(domain, known, encoded) for encoded in request.descriptors]
        else:
            domain = ""
            parts = [NO_PART] * len(request.descriptors)
        key = (domain, request.hits_addend, *[part.facts for part in parts])
        outline = self._outlines.get(key)
        if outline is None or self._switches.metadata:
            return self._draw(request, domain, parts, key)
        shape, tally, places, size = outline
        names = tuple([parts[i].names[j] for i, j in places])
        if len(names) > 1 and len(set(names)) < len(names):
            return self._draw(request, domain, parts, None)
        return Plan(names, shape, tally), size + sum(map(len, names))

    def _draw(
        self, request: Request, domain: str, parts: Sequence[Part], key: tuple[Hashable, ...] | None
    ) -> tuple[Plan, int]:
        """Work a plan out; `key` is what to remember its outline by, if no counter comes twice in it."""
        self.work_us += DRAW_US * len(parts)
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
        alike = (asks, counters_of, tier, Labels(path, tier or "none"), domain, any(each.rule for each in facts))
        names = draft.names()
        tally = Tally(rules) if rules else NO_TALLY
        size = PLAN_BYTES + 41 * len(names) + tally.own_bytes
        if self._switches.metadata:
            telling = Shape(*alike, self._told(request, facts, counters_of, tier))
            told_bytes = 2000 + 4 * sum(map(len, request.descriptors))
            return Plan(names, telling, tally), size + telling.bytes + told_bytes + sum(map(len, names))
        shape = self._shapes.get(alike)
        made_bytes = 0
        if shape is None:
            shape = Shape(*alike)
            made_bytes = shape.bytes
            self._shapes.remember(alike, shape, made_bytes)
        places = {name: (i, j) for i, part in reversed(list(enumerate(parts))) for j, name in enumerate(part.names)}
        if key is not None and sum(map(len, counters_of)) - counters_of.count(UNLIMITED_AT) == len(draft.costs):
            outline = Outline(shape, tally, tuple(places[name] for name in draft.costs), size)
            outline_bytes = made_bytes + 400 + 20 * len(key) + 140 * len(rules) + sum(each.bytes for each in facts)
            self._outlines.remember(key, outline, outline_bytes)
        return Plan(names, shape, tally), size + made_bytes + sum(map(len, names))

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

    def _part(self, domain: str, known: Memo[bytes, Part], encoded: bytes) -> Part:
        key, part = encoded, None
        if len(encoded) > MAX_KEY_BYTES:
            key = b"#" + blake2b(encoded, digest_size=32).digest()  # which no descriptor is
            part = known.get(key)
        if part is None:
            descriptor = self._decode_descriptor(encoded)
            self.work_us += PART_US + len(descriptor.entries)
            if self.matcher.has_patterns:
                self.work_us += self.matcher.scanned_bytes(domain, descriptor.entries) // SCANNED_BYTES_PER_US
            if self.work_us > self._most_work_us:
                raise RequestTooLargeError("too many entries in a request")
            part = self._make_part(domain, descriptor)
            names, facts = part
            size = PART_BYTES + len(key) + facts.bytes
            if names:  # they differ in their ends only
                size += (len(names[0]) + 60) * len(names)
            known.remember(key, part, size)
        return part

    def _make_part(self, domain: str, descriptor: Descriptor) -> Part:
        rules = self.matcher.rules.domains[domain]
        entries = descriptor.entries
        if rules.is_label(entries):
            label, value = entries[0]
            shown = self.matcher.masking.show(value, secret=rules.secret.cover(label))
            return Part((), Facts(path=shown, bytes=OWN_FACTS_BYTES + len(shown)))
        hits, negative = descriptor.hits_addend, descriptor.is_negative_hits
        if descriptor.limit is not None:
            limit = _override(descriptor.limit, rules.algorithm, rules.count_denied)
            # Not by its number, or who can move that would begin anew with each one.
            name = self._name_counter(domain, entries, (), f"override-{limit.period_us // 1_000_000}")
            called = override_name(domain, (entry.key for entry in entries), self.matcher.masking)
            size = OWN_FACTS_BYTES + len(called.name)
            return Part((name,), Facts((limit,), hits=hits, negative=negative, rule=called, bytes=size))
        match = self.matcher.match(domain, entries)
        if match is None or not match.rule.limits:
            return NO_PART
        ordinals = which(match.rule.limits) if len(match.rule.limits) > 1 else _ONLY
        names = tuple([self._name_counter(domain, entries, match.shared, ordinal) for ordinal in ordinals])
        if match.name is None:
            facts = self._make_facts(domain, match, entries, hits, negative=negative)
        elif hits is None and not negative:
            shared = self._facts.get(id(match))
            if shared is None:
                shared = self._facts[id(match)] = self._make_facts(domain, match, entries)
            facts = shared
        else:
            key = (id(match), hits, negative)
            known = self._facts_with_hits.get(key)
            facts = known or self._make_facts(domain, match, entries, hits, negative=negative)
            if known is None:
                self._facts_with_hits.remember(key, facts, 400)
        return Part(names, facts)

    def _make_facts(
        self, domain: str, match: Match, entries: Sequence[Entry], hits: int | None = None, *, negative: bool = False
    ) -> Facts:
        rule = match.rule
        replaces = frozenset(name for limit in rule.limits for name in limit.replaces)
        name = self.matcher.name(match, domain, entries)
        return Facts(
            rule.limits,
            rule.tier,
            None,
            hits,
            negative,
            rule.shadow_mode,
            rule.quota_mode,
            name,
            rule.metadata,
            replaces or NOTHING,
            0 if match.name is not None else OWN_FACTS_BYTES + len(name.name),
        )

    def _told(
        self, request: Request, facts: Sequence[Facts], counters_of: Sequence[tuple[int, ...]], tier: str | None
    ) -> Told:
        told = self._describe(request)
        if tier is not None:
            told["tier"] = tier
        applied = zip(facts, counters_of, strict=True)
        return Told(told, tuple(each.metadata if own and own is not UNLIMITED_AT else None for each, own in applied))

    def describe(self, message: bytes) -> dict[str, Any]:
        """A call as JSON's data, with secret values masked."""
        return self._describe(self._split(message))

    def _describe(self, request: Request) -> dict[str, Any]:
        rules, masking = self.matcher.rules.domains.get(request.domain), self.matcher.masking
        secret = NAMED_SO if rules is None else rules.secret
        descriptors = []
        for descriptor in map(self._decode_descriptor, request.descriptors):
            entries = (
                f"{key}={masking.mask(value) if secret.cover(key) else value}" for key, value in descriptor.entries
            )
            descriptors.append({"entries": list(entries), **_describe_numbers(descriptor)})
        hits = {} if request.hits_addend == 1 else {"hitsAddend": request.hits_addend}
        return {"domain": request.domain, "descriptors": descriptors, **hits}


def _describe_numbers(descriptor: Descriptor) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if descriptor.limit is not None:
        told["limit"] = f"requests_per_unit:{descriptor.limit.requests_per_unit} unit:{descriptor.limit.unit.name}"
    if descriptor.hits_addend is not None:
        told["hitsAddend"] = descriptor.hits_addend
    return told


def which(limits: Sequence[Limit]) -> list[str]:
    """Names that tell the limits of one rule apart: the period in seconds, and of several of one period the place."""
    names: list[str] = []
    for limit in limits:
        name = str(limit.period_us // 1_000_000)
        again = sum(1 for other in names if other.partition(".")[0] == name)
        names.append(f"{name}.{again + 1}" if again else name)
    return names


@lru_cache(maxsize=1024)
def _override(override: Override, algorithm: Algorithm, count_denied: bool) -> Limit:
    return Limit(override.requests_per_unit, override.unit, algorithm, count_denied)
