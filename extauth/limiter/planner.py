"""From a request to its plan: what it will count, before it is counted.

What a request of several limits means. Each descriptor hits at most one rule, whose limits apply, but for those that
another limit that applies names in `replaces`. The request is admitted if all enforced limits have room for its hits
and, where quotas apply, one of these has: then each takes its hits, shadowed limits and quotas only if they have room.
A request that is denied takes nothing, anywhere, but in limits with `count_denied`. The same counter twice in one
request is one counter: its hits add, and if the descriptors bring different limits with them, each of these is checked
against it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from extauth.errors import InvalidRequestError
from extauth.limiter.counter_names import KeyNamer
from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.descriptor_log import encode_log
from extauth.limiter.descriptor_plan import (
    MAX_KEY_BYTES,
    NOT_LIMITED,
    NOTHING,
    DescriptorPlan,
    DescriptorPlanner,
    Work,
)
from extauth.limiter.memo import Memo
from extauth.limiter.metadata import describe_entries, describe_request, request_metadata
from extauth.limiter.modes import NO_MODES, GlobalModes, modes_of
from extauth.limiter.plan import NO_TALLY, UNLIMITED_AT, LoggedPlan, Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rls.request import Request, decode_descriptor, split_request
from extauth.rules.masking import NAMED_SO
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit
from extauth.rules.rule_names import RuleName

# More than any limit admits, as what is cut off must be: of 2**32 - 1 hits a limit may have room. Exact in a double.
MAX_COST = 2**53 - 1
PLAN_BYTES = 335  # of a plan, beside its message, its counters' names and those of rules that are its own
BUILD_US = 3  # about what each descriptor takes where their combination is new
MAX_WORK_US = 7500  # for one request, of descriptors that are new: 100 of 60 entries each
MAX_PLANS_BYTES = 50 << 20  # of 100,000 callers with usual names
MAX_OUTLINES_BYTES = 16 << 20
MAX_TEMPLATES_BYTES = 10 << 20


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

    __slots__ = ("costs", "limits", "modes", "own", "replaced")

    def __init__(self, replaced: frozenset[str], modes: GlobalModes) -> None:
        self.modes = modes
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
                checks.append(self.modes.check(limit, cost, mode))
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
        namer: KeyNamer,
        *,
        modes: GlobalModes = NO_MODES,
        plans_bytes: int = MAX_PLANS_BYTES,
    ) -> None:
        self._namer = namer
        self._modes = modes
        self._plans_bytes = plans_bytes
        self.work = Work()
        self._next: DescriptorPlanner | None = None
        self.hits = self.misses = 0  # in the memory of whole messages, since the start; who uses `recall` counts hits
        self._take_up(matcher)

    def before_swap(self, matcher: Matcher) -> None:
        """Do beside the event loop most of what `swap` to this matcher would have to do at once."""
        self._next = DescriptorPlanner(matcher, self._namer, self.work)

    def swap(self, matcher: Matcher) -> list[dict[Any, Any]]:
        """Put other rules in force; plans already handed out keep the rules that they began with.

        Returns tables of what was remembered, which are no longer used, to be emptied bit by bit.
        """
        unused: list[dict[Any, Any]] = [self._plans, self._outlines, self._templates, *self._descriptors.remembered()]
        self._take_up(matcher)
        return unused

    def _take_up(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self._plans: Memo[bytes, Plan] = Memo(self._plans_bytes)
        self.recall: Callable[[bytes], Plan | None] = self._plans.get
        """The plan of a whole message if it is remembered: what `plan` tries first, without a call of Python's."""
        self._remembered = self.recall
        prepared, self._next = self._next, None
        if prepared is None or prepared.matcher is not matcher:
            prepared = DescriptorPlanner(matcher, self._namer, self.work)
        self._descriptors, self._known, self._together = prepared, prepared.known, prepared.together
        self._outlines: Memo[tuple[Hashable, ...], PlanOutline] = Memo(MAX_OUTLINES_BYTES)
        # Of many rules, most plans are alike.
        self._templates: Memo[tuple[Any, ...], PlanTemplate] = Memo(MAX_TEMPLATES_BYTES)

    def apart(self) -> "Planner":
        """A planner by the same rules that shares no memory and no counters with this one."""
        return Planner(self.matcher, self._namer, modes=self._modes)

    def plan(self, message: bytes) -> Plan:
        """The plan for one call; raises InvalidRequestError, which is not remembered."""
        plan = self._remembered(message)
        if plan is not None:
            self.hits += 1
        else:
            self.misses += 1
            request = split_request(message)
            plan, own_bytes = self._plan_request(request)
            if self._modes.log_descriptors:
                plan = LoggedPlan(plan.names, plan.template, plan.tally, encode_log(request, self.matcher))
                own_bytes += len(plan.log)
            plan.message = message
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
        self.work.most_us = self.work.us + MAX_WORK_US
        domain = request.domain
        known = self._known.get(domain)
        if known is not None:
            parts = [
                known.get(encoded) or self._descriptors.plan(domain, known, encoded) for encoded in request.descriptors
            ]
        else:
            domain = ""
            parts = [NOT_LIMITED] * len(request.descriptors)
        if domain in self._together:
            parts = self._beside_the_first(request, parts)
        key = (domain, request.hits_addend, *[part.effects for part in parts])
        outline = self._outlines.get(key)
        if outline is None or self._modes.metadata:
            return self._build(request, domain, parts, key)
        template, tally, places, size = outline
        names = tuple([parts[i].names[j] for i, j in places])
        if len(names) > 1 and len(set(names)) < len(names):
            return self._build(request, domain, parts, None)
        return Plan(names, template, tally), size + sum(map(len, names))

    def _beside_the_first(self, request: Request, parts: Sequence[DescriptorPlan]) -> list[DescriptorPlan]:
        """The parts with all counters on the shard that the first descriptor's has, or would have."""
        names, beside = parts[0].names, self._namer.beside
        first = names[0] if names else self._namer(request.domain, decode_descriptor(request.descriptors[0]).entries)
        return [DescriptorPlan(tuple([beside(name, first) for name in part.names]), part.effects) for part in parts]

    def _build(
        self, request: Request, domain: str, parts: Sequence[DescriptorPlan], key: tuple[Hashable, ...] | None
    ) -> tuple[Plan, int]:
        """Work a plan out; `key` is what to remember its outline by, if no counter comes twice in it."""
        self.work.us += BUILD_US * len(parts)
        effects = [part.effects for part in parts]
        replaced = NOTHING.union(*[each.replaces for each in effects])
        draft = _PlanBuilder(replaced, self._modes)
        path, tier = "none", None
        for part, mode in zip(parts, modes_of(effects, replaced, self._modes), strict=True):
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
        rules_of = self.matcher.domain(domain)
        secret = NAMED_SO if rules_of is None else rules_of.secret
        alike = (checks, counters_of, tier, Labels(path, tier or "none"), domain, any(each.rule for each in effects))
        names = draft.names()
        shadowed = tuple([i for i, check in enumerate(checks) if check.mode is Mode.SHADOW])
        tally = Tally(rules, shadowed) if rules else NO_TALLY
        size = PLAN_BYTES + 41 * len(names) + tally.own_bytes
        if self._modes.metadata:
            described = describe_request(request, self.matcher)
            metadata = request_metadata(described, effects, counters_of, tier)
            telling = PlanTemplate(*alike, metadata, secret=secret)
            told_bytes = 2000 + 4 * sum(map(len, request.descriptors))
            return Plan(names, telling, tally), size + telling.bytes + told_bytes + sum(map(len, names))
        template = self._templates.get(alike)
        made_bytes = 0
        if template is None:
            template = PlanTemplate(*alike, secret=secret)
            made_bytes = template.bytes
            self._templates.remember(alike, template, made_bytes)
        places = {name: (i, j) for i, part in reversed(list(enumerate(parts))) for j, name in enumerate(part.names)}
        if key is not None and sum(map(len, counters_of)) - counters_of.count(UNLIMITED_AT) == len(draft.costs):
            outline = PlanOutline(template, tally, tuple(places[name] for name in draft.costs), size)
            outline_bytes = made_bytes + 400 + 20 * len(key) + 440 * len(rules) + sum(each.bytes for each in effects)
            self._outlines.remember(key, outline, outline_bytes)
        return Plan(names, template, tally), size + made_bytes + sum(map(len, names))

    def describe_counter(self, message: bytes, name: bytes) -> str | None:
        """The descriptor that takes from the counter `name`, as text with secret values masked: `api_key=fr***~1a2b3c`.

        None if no descriptor of the message does, by the rules in force. Raises InvalidRequestError.
        """
        request = split_request(message)
        if self.matcher.domain(request.domain) is not None:
            for encoded in request.descriptors:
                names = self._descriptors.peek(request.domain, encoded).names
                if any(self._namer.beside(each, name) == name for each in names):  # it may lie on another's shard
                    return describe_entries(request.domain, decode_descriptor(encoded), self.matcher)
        return None

    def describe(self, message: bytes) -> dict[str, Any]:
        """A call as JSON's data, with secret values masked."""
        return describe_request(split_request(message), self.matcher)
