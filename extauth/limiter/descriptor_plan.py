"""What one descriptor adds to the plan of a request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from extauth.errors import RequestTooLargeError
from extauth.limiter.counter_names import KeyNamer
from extauth.limiter.memo import Memo
from extauth.rls.request import Descriptor, Entry, Override, decode_descriptor
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import Algorithm, Limit, OnStoreFailure
from extauth.rules.rule_names import RuleName, override_name

DESCRIPTOR_PLAN_BYTES = 400  # of a DescriptorPlan, beside its key and its counters' names
OWN_EFFECT_BYTES = 450  # of a RuleEffect that one descriptor has for itself, beside its texts
MAX_DESCRIPTOR_PLANS_BYTES = 12 << 20  # of all domains together,
MIN_DESCRIPTOR_PLANS_BYTES = 1 << 17  # but this for each domain
MAX_EFFECTS_BYTES = 4 << 20
MAX_KEY_BYTES = 512  # larger descriptors are remembered by their hash
DESCRIPTOR_US = 15  # about what it takes to plan a descriptor; for each of its entries it is 1 more
SCANNED_BYTES_PER_US = 500  # of a value, that one pattern is tried on

NOTHING: Final[frozenset[str]] = frozenset()
_ONLY = ("",)


class Work:
    """About how long planning has taken so far, in `us`; the request that is being planned may take it to `most_us`."""

    __slots__ = ("most_us", "us")

    def __init__(self) -> None:
        self.us = self.most_us = 0


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


class DescriptorPlanner:
    """Plans descriptors, one by one, and remembers the effects of rules; lives as long as the rules."""

    def __init__(self, matcher: Matcher, namer: KeyNamer, work: Work) -> None:
        self._namer = namer
        self._work = work
        self.matcher = matcher
        domains = matcher.rules.domains
        self.together = frozenset([name for name, domain in domains.items() if domain.together])
        """The domains of whose requests all counters lie on one shard."""
        share = max(MAX_DESCRIPTOR_PLANS_BYTES // max(len(domains), 1), MIN_DESCRIPTOR_PLANS_BYTES)
        self.known: dict[str, Memo[bytes, DescriptorPlan]] = {domain: Memo(share) for domain in domains}
        # By the identity of Matches, which the matcher keeps. Of those whose hits are the request's, one a rule.
        self._effects: dict[int, RuleEffect] = {}
        self._effects_with_hits: Memo[tuple[int, int | None, bool], RuleEffect] = Memo(MAX_EFFECTS_BYTES)

    def remembered(self) -> list[dict[Any, Any]]:
        """All that is remembered, in as many tables."""
        return [*self.known.values(), self._effects, self._effects_with_hits]

    def plan(self, domain: str, known: Memo[bytes, DescriptorPlan], encoded: bytes) -> DescriptorPlan:
        """The plan of an encoded descriptor that is not in `known`; raises InvalidRequestError."""
        key, plan = encoded, None
        if len(encoded) > MAX_KEY_BYTES:
            key = b"#" + blake2b(encoded, digest_size=32).digest()  # which no descriptor is
            plan = known.get(key)
        if plan is None:
            descriptor = decode_descriptor(encoded)
            work = self._work
            work.us += DESCRIPTOR_US + len(descriptor.entries)
            if self.matcher.has_patterns:
                work.us += self.matcher.scanned_bytes(domain, descriptor.entries) // SCANNED_BYTES_PER_US
            if work.us > work.most_us:
                raise RequestTooLargeError("too many entries in a request")
            plan = self._make(domain, descriptor)
            names, effects = plan
            size = DESCRIPTOR_PLAN_BYTES + len(key) + effects.bytes
            if names:  # they differ in their ends only
                size += (len(names[0]) + 60) * len(names)
            known.remember(key, plan, size)
        return plan

    def peek(self, domain: str, encoded: bytes) -> DescriptorPlan:
        """The plan of an encoded descriptor, which is not remembered for this; raises InvalidRequestError."""
        return self.known[domain].get(encoded) or self._make(domain, decode_descriptor(encoded))

    def _make(self, domain: str, descriptor: Descriptor) -> DescriptorPlan:
        rules = self.matcher.rules.domains[domain]
        entries = descriptor.entries
        if rules.is_label(entries):
            label, value = entries[0]
            shown = self.matcher.masking.show(value, secret=rules.secret.covers(label, value))
            return DescriptorPlan((), RuleEffect(path=shown, bytes=OWN_EFFECT_BYTES + len(shown)))
        hits, negative = descriptor.hits_addend, descriptor.is_negative_hits
        if descriptor.limit is not None:
            limit = _override(descriptor.limit, rules.algorithm, rules.count_denied, rules.on_store_failure)
            # Not by its number, or who can move that would begin anew with each one.
            name = self._namer(domain, entries, (), f"override-{limit.period_us // 1_000_000}")
            called = override_name(domain, (entry.key for entry in entries), self.matcher.masking)
            size = OWN_EFFECT_BYTES + len(called.name)
            return DescriptorPlan((name,), RuleEffect((limit,), hits=hits, negative=negative, rule=called, bytes=size))
        match = self.matcher.match(domain, entries)
        if match is None or not match.rule.limits:
            return NOT_LIMITED
        ordinals = counter_suffixes(match.rule.limits) if len(match.rule.limits) > 1 else _ONLY
        names = tuple([self._namer(domain, entries, match.shared, ordinal) for ordinal in ordinals])
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


def counter_suffixes(limits: Sequence[Limit]) -> list[str]:
    """Names that tell the limits of one rule apart: the period in seconds, and of several of one period the place."""
    names: list[str] = []
    for limit in limits:
        name = str(limit.period_us // 1_000_000)
        again = sum(1 for other in names if other.partition(".")[0] == name)
        names.append(f"{name}.{again + 1}" if again else name)
    return names


@lru_cache(maxsize=1024)
def _override(
    override: Override, algorithm: Algorithm, count_denied: bool, on_store_failure: OnStoreFailure | None
) -> Limit:
    return Limit(
        override.requests_per_unit,
        override.unit,
        algorithm,
        count_denied=count_denied,
        on_store_failure=on_store_failure,
    )
