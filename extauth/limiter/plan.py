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
from extauth.limiter.counters import CounterSet, LimitCheck, Mode
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
DESCRIPTOR_PLAN_BYTES = 400  # of a DescriptorPlan, beside its key and its counters' names
OWN_EFFECT_BYTES = 450  # of a RuleEffect that one descriptor has for itself, beside its texts
PART_US = 15  # about what it takes to plan for a descriptor; for each of its entries it is 1 more
DRAW_US = 3  # and for each descriptor, where their combination is new
SCANNED_BYTES_PER_US = 500  # of a value, that one pattern is tried on
MAX_WORK_US = 7500  # for one request, of descriptors that are new: 100 of 60 entries each
MAX_PLANS_BYTES = 48 << 20
MAX_DESCRIPTOR_PLANS_BYTES = 12 << 20  # of all domains together,
MIN_DESCRIPTOR_PLANS_BYTES = 1 << 17  # but for each one this
MAX_OUTLINES_BYTES = 16 << 20
MAX_TEMPLATES_BYTES = 10 << 20
MAX_EFFECTS_BYTES = 4 << 20
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


class GlobalModes(NamedTuple):
    """What holds for all requests.

    `shadow_mode`: nothing is denied. `quota_mode`: all limits are quotas. `metadata`: answers carry them.
    """

    shadow_mode: bool = False
    quota_mode: bool = False
    metadata: bool = False


NO_MODES = GlobalModes()
_ONLY = ("",)
_ENFORCED = (Mode.ENFORCED,) * 8


class RequestMetadata(NamedTuple):
    """The data for an answer's dynamic metadata: of the request, and of each descriptor's rule."""

    request: Mapping[str, Any]
    metadata: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PlanTemplate:
    """The part of a plan that many rules have in common: the checks, and the form of the responses.

    `counters_of` says, for each descriptor, which of the plan's counters are its own: none, or UNLIMITED_AT. `tier` is
    the first tier, in descriptor order, that nothing replaced. `domain` is empty where no file defines it; `matched`
    says whether a rule or a limit of the request's own applied to any of the descriptors. An admitted call may be
    over a limit only if it is `soft`. `cost_us` is about how long Redis takes to count one call, `bytes` how much
    memory it takes up. Compared by identity.
    """

    checks: tuple[LimitCheck, ...]
    counters_of: tuple[tuple[int, ...], ...]
    tier: str | None
    labels: Labels
    domain: str = ""
    matched: bool = True
    metadata: RequestMetadata | None = None
    soft: bool = field(init=False)
    cost_us: int = field(init=False)
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "soft", any(check.mode is not Mode.ENFORCED for check in self.checks))
        object.__setattr__(self, "cost_us", sum(COSTS_US[check.limit.algorithm] for check in self.checks))
        object.__setattr__(self, "bytes", 400 + 80 * len(self.counters_of) + 160 * len(self.checks))

    @property
    def blocks(self) -> bool:
        """Whether any of the limits may deny."""
        return any(check.mode is Mode.ENFORCED or check.mode is Mode.QUOTA for check in self.checks)


class Tally:
    """The name of the rule of each check; one object for all plans with the same rules.

    `calls` and `series` belong to the metrics: they count here, where all plans of the rules lead them, look the rules'
    series up once, and add the calls to these now and then.
    """

    __slots__ = ("calls", "rules", "series")

    def __init__(self, rules: tuple[RuleName, ...]) -> None:
        self.rules = rules
        self.calls = 0
        self.series: Any = None

    @property
    def own_bytes(self) -> int:
        """About how many bytes the names take up that no file has."""
        return sum(len(rule.name) + 150 for rule in self.rules if not rule.in_file)


NO_TALLY = Tally(())


class Plan(CounterSet):
    """What a request counts. There are very many plans, so one holds only what it shares with no other."""

    __slots__ = ("cost_us", "tally", "template")

    def __init__(self, names: tuple[bytes, ...], template: PlanTemplate, tally: Tally = NO_TALLY) -> None:
        self.names = names
        self.checks = template.checks
        self.template = template
        self.tally = tally
        self.cost_us = template.cost_us


@dataclass(frozen=True, slots=True, eq=False)
class RuleEffect:
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


class DescriptorPlan(NamedTuple):
    """What one descriptor adds to a plan: counters, one a limit, or none."""

    names: tuple[bytes, ...]
    effects: RuleEffect


NOT_LIMITED = DescriptorPlan((), RuleEffect())


class PlanOutline(NamedTuple):
    """The plan of all requests whose descriptors have the same effects, except for the names of its counters.

    `places` say where each name comes from: (index of the descriptor, index of the name in its DescriptorPlan). `bytes`
    is the size of a plan without the text of its names.
    """

    template: PlanTemplate
    tally: Tally
    places: tuple[tuple[int, int], ...]
    bytes: int


class _PlanBuilder:
    """What a plan's counters are, as they are found: names with their costs, and the limits that each is held to.

    `limits` say, by counter and limit, the mode and the rule; `own`, by descriptor, which of these are its own.
    """

    __slots__ = ("costs", "limits", "own", "replaced")

    def __init__(self, replaced: frozenset[str]) -> None:
        self.replaced = replaced
        self.costs: dict[bytes, int] = {}
        self.limits: dict[bytes, dict[Limit, tuple[Mode, RuleName]]] = {}
        self.own: list[list[tuple[bytes, Limit]] | None] = []

    def add(self, part: DescriptorPlan, mode: Mode, hits: int) -> bool:
        """Add the part's counters but for limits that are replaced; returns whether there are any."""
        costs, effects = self.costs, part.effects
        own: list[tuple[bytes, Limit]] = []
        assert effects.rule is not None  # noqa: S101 - all that has limits has
        for name, limit in zip(part.names, effects.limits, strict=True):
            if limit.name and limit.name in self.replaced:
                continue
            held_to = self.limits.setdefault(name, {})
            if limit not in held_to:
                held_to[limit] = (Mode.SAME_QUOTA if mode is Mode.QUOTA and own else mode), effects.rule
            own.append((name, limit))
            costs[name] = costs.get(name, 0) + (-hits if effects.negative else hits)
        self.own.append(own)
        return bool(own)

    def names(self) -> tuple[bytes, ...]:
        """The counters' names, one for each check."""
        return tuple([name for name, limits in self.limits.items() for _ in limits])

    def finish(self) -> tuple[tuple[LimitCheck, ...], tuple[tuple[int, ...], ...], tuple[RuleName, ...]]:
        """The checks, the indices of each descriptor's own checks, and the rule of each check."""
        checks: list[LimitCheck] = []
        rules: list[RuleName] = []
        at: dict[tuple[bytes, Limit], int] = {}
        for name, held_to in self.limits.items():
            cost = max(min(self.costs[name], MAX_COST), -MAX_COST)
            for limit, (mode, rule) in held_to.items() if len(held_to) == 1 else _in_order(held_to):
                at[name, limit] = len(checks)
                checks.append(LimitCheck(limit, cost, mode))
                rules.append(rule)
        counters_of = [UNLIMITED_AT if own is None else tuple([at[each] for each in own]) for own in self.own]
        return tuple(checks), tuple(counters_of), tuple(rules)


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
        switches: GlobalModes = NO_MODES,
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
        share = max(MAX_DESCRIPTOR_PLANS_BYTES // max(len(domains), 1), MIN_DESCRIPTOR_PLANS_BYTES)
        self._descriptor_plans: dict[str, Memo[bytes, DescriptorPlan]] = {domain: Memo(share) for domain in domains}
        self._outlines: Memo[tuple[Hashable, ...], PlanOutline] = Memo(MAX_OUTLINES_BYTES)
        # Of many rules, most plans are alike.
        self._templates: Memo[tuple[Any, ...], PlanTemplate] = Memo(MAX_TEMPLATES_BYTES)
        # By the identity of Matches, which the matcher keeps. Of those whose hits are the request's, one a rule.
        self._effects: dict[int, RuleEffect] = {}
        self._effects_with_hits: Memo[tuple[int, int | None, bool], RuleEffect] = Memo(MAX_EFFECTS_BYTES)

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._recall(message)
        if plan is None:
            plan, own_bytes = self._plan_request(self._split(message))
            if len(message) <= MAX_KEY_BYTES:
                self._plans.remember(message, plan, own_bytes + len(message))
        return plan

    def _plan_request(self, request: Request) -> tuple[Plan, int]:
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
        known = self._descriptor_plans.get(domain)
        if known is not None:
            parts = [
                known.get(encoded) or self._descriptor_plan(domain, known, encoded) for encoded in request.descriptors
            ]
        else:
            domain = ""
            parts = [NOT_LIMITED] * len(request.descriptors)
        key = (domain, request.hits_addend, *[part.effects for part in parts])
        outline = self._outlines.get(key)
        if outline is None or self._switches.metadata:
            return self._build(request, domain, parts, key)
        template, tally, places, size = outline
        names = tuple([parts[i].names[j] for i, j in places])
        if len(names) > 1 and len(set(names)) < len(names):
            return self._build(request, domain, parts, None)
        return Plan(names, template, tally), size + sum(map(len, names))

    def _build(
        self, request: Request, domain: str, parts: Sequence[DescriptorPlan], key: tuple[Hashable, ...] | None
    ) -> tuple[Plan, int]:
        """Work a plan out; `key` is what to remember its outline by, if no counter comes twice in it."""
        self.work_us += DRAW_US * len(parts)
        effects = [part.effects for part in parts]
        replaced = NOTHING.union(*[each.replaces for each in effects])
        draft = _PlanBuilder(replaced)
        path, tier = "none", None
        for part, mode in zip(parts, self._modes(effects, replaced), strict=True):
            own = part.effects
            if not own.limits:
                path = own.path or path
                draft.own.append([])
            elif own.limits[0].unlimited:
                tier = tier or own.tier
                draft.own.append(None)
            elif draft.add(part, mode, request.hits_addend if own.hits is None else own.hits):
                tier = tier or own.tier
        checks, counters_of, rules = draft.finish()
        alike = (checks, counters_of, tier, Labels(path, tier or "none"), domain, any(each.rule for each in effects))
        names = draft.names()
        tally = Tally(rules) if rules else NO_TALLY
        size = PLAN_BYTES + 41 * len(names) + tally.own_bytes
        if self._switches.metadata:
            telling = PlanTemplate(*alike, self._metadata(request, effects, counters_of, tier))
            told_bytes = 2000 + 4 * sum(map(len, request.descriptors))
            return Plan(names, telling, tally), size + telling.bytes + told_bytes + sum(map(len, names))
        template = self._templates.get(alike)
        made_bytes = 0
        if template is None:
            template = PlanTemplate(*alike)
            made_bytes = template.bytes
            self._templates.remember(alike, template, made_bytes)
        places = {name: (i, j) for i, part in reversed(list(enumerate(parts))) for j, name in enumerate(part.names)}
        if key is not None and sum(map(len, counters_of)) - counters_of.count(UNLIMITED_AT) == len(draft.costs):
            outline = PlanOutline(template, tally, tuple(places[name] for name in draft.costs), size)
            outline_bytes = made_bytes + 400 + 20 * len(key) + 140 * len(rules) + sum(each.bytes for each in effects)
            self._outlines.remember(key, outline, outline_bytes)
        return Plan(names, template, tally), size + made_bytes + sum(map(len, names))

    def _modes(self, parts: Sequence[RuleEffect], replaced: frozenset[str]) -> Sequence[Mode]:
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
                modes.append(Mode.SHADOW if part.shadow_mode else Mode.REPORT_ONLY)
            elif part.shadow_mode:
                modes.append(Mode.SHADOW)
            else:
                modes.append(Mode.QUOTA if quota else Mode.ENFORCED)
        return [Mode.REPORT_ONLY if mode is Mode.QUOTA and passes else mode for mode in modes]

    def _descriptor_plan(self, domain: str, known: Memo[bytes, DescriptorPlan], encoded: bytes) -> DescriptorPlan:
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
            part = self._make_descriptor_plan(domain, descriptor)
            names, effects = part
            size = DESCRIPTOR_PLAN_BYTES + len(key) + effects.bytes
            if names:  # they differ in their ends only
                size += (len(names[0]) + 60) * len(names)
            known.remember(key, part, size)
        return part

    def _make_descriptor_plan(self, domain: str, descriptor: Descriptor) -> DescriptorPlan:
        rules = self.matcher.rules.domains[domain]
        entries = descriptor.entries
        if rules.is_label(entries):
            label, value = entries[0]
            shown = self.matcher.masking.show(value, secret=rules.secret.cover(label))
            return DescriptorPlan((), RuleEffect(path=shown, bytes=OWN_EFFECT_BYTES + len(shown)))
        hits, negative = descriptor.hits_addend, descriptor.is_negative_hits
        if descriptor.limit is not None:
            limit = _override(descriptor.limit, rules.algorithm, rules.count_denied)
            # Not by its number, or who can move that would begin anew with each one.
            name = self._name_counter(domain, entries, (), f"override-{limit.period_us // 1_000_000}")
            called = override_name(domain, (entry.key for entry in entries), self.matcher.masking)
            size = OWN_EFFECT_BYTES + len(called.name)
            return DescriptorPlan((name,), RuleEffect((limit,), hits=hits, negative=negative, rule=called, bytes=size))
        match = self.matcher.match(domain, entries)
        if match is None or not match.rule.limits:
            return NOT_LIMITED
        ordinals = counter_suffixes(match.rule.limits) if len(match.rule.limits) > 1 else _ONLY
        names = tuple([self._name_counter(domain, entries, match.shared, ordinal) for ordinal in ordinals])
        if match.name is None:
            effects = self._make_effect(domain, match, entries, hits, negative=negative)
        elif hits is None and not negative:
            shared = self._effects.get(id(match))
            if shared is None:
                shared = self._effects[id(match)] = self._make_effect(domain, match, entries)
            effects = shared
        else:
            key = (id(match), hits, negative)
            known = self._effects_with_hits.get(key)
            effects = known or self._make_effect(domain, match, entries, hits, negative=negative)
            if known is None:
                self._effects_with_hits.remember(key, effects, 400)
        return DescriptorPlan(names, effects)

    def _make_effect(
        self, domain: str, match: Match, entries: Sequence[Entry], hits: int | None = None, *, negative: bool = False
    ) -> RuleEffect:
        rule = match.rule
        replaces = frozenset(name for limit in rule.limits for name in limit.replaces)
        name = self.matcher.name(match, domain, entries)
        return RuleEffect(
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
            0 if match.name is not None else OWN_EFFECT_BYTES + len(name.name),
        )

    def _metadata(
        self, request: Request, effects: Sequence[RuleEffect], counters_of: Sequence[tuple[int, ...]], tier: str | None
    ) -> RequestMetadata:
        told = self._describe(request)
        if tier is not None:
            told["tier"] = tier
        applied = zip(effects, counters_of, strict=True)
        return RequestMetadata(
            told, tuple(each.metadata if own and own is not UNLIMITED_AT else None for each, own in applied)
        )

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


def counter_suffixes(limits: Sequence[Limit]) -> list[str]:
    """Names that tell the limits of one rule apart: the period in seconds, and of several of one period the place."""
    names: list[str] = []
    for limit in limits:
        name = str(limit.period_us // 1_000_000)
        again = sum(1 for other in names if other.partition(".")[0] == name)
        names.append(f"{name}.{again + 1}" if again else name)
    return names


@lru_cache(maxsize=1024)
def _override(override: Override, algorithm: Algorithm, count_denied: bool) -> Limit:
    return Limit(override.requests_per_unit, override.unit, algorithm, count_denied=count_denied)
