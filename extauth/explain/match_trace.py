"""Why a descriptor hits a rule, level by level.

What is hit is what the matcher says; why the other rules are not is asked of matchers that know one rule each.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from extauth.explain.text import many_keys, place, rule_in_words
from extauth.rls.request import Descriptor, Entry
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.model import Domain, Kind, Rule, RuleSet

MAX_OTHERS = 5  # rules of a level that are listed, of those that are not hit
_EXACT = {Kind.VALUE, Kind.VALUES}
_HIT = {
    Kind.VALUE: "exactly this value",
    Kind.VALUES: "one of its values",
    Kind.SHA256: "the value's SHA-256 is its value_sha256",
    Kind.WILDCARD: "the wildcard matches",
    Kind.REGEX: "the regex matches the whole value",
    Kind.RANGE: "the number is in its range",
    Kind.CIDR: "the address is in its network, and in no longer one",
    Kind.ANY: "the bare key takes any value",
}
_DIFFERS = {
    Kind.VALUE: "the value differs",
    Kind.VALUES: "the value is not among its values",
    Kind.SHA256: "the value's SHA-256 differs",
    Kind.WILDCARD: "the wildcard does not match",
    Kind.REGEX: "the regex does not match the whole value",
    Kind.RANGE: "the value is no number in its range",
    Kind.CIDR: "the value is no address in its networks",
}


class Other(NamedTuple):
    """A rule for the entry's key that is not hit, and why."""

    rule: Rule
    why: str


class Step(NamedTuple):
    """One entry of a descriptor: the rule it hits, or None, and why; `more` others are not listed."""

    entry: Entry
    rule: Rule | None
    why: str
    others: tuple[Other, ...] = ()
    more: int = 0


def steps(matcher: Matcher, domain: Domain, descriptor: Descriptor) -> list[Step]:
    """The way of the descriptor through the rules, up to the first entry that hits none."""
    taken: list[Step] = []
    level: Sequence[Rule] = domain.rules
    above: Rule | None = None
    for depth, entry in enumerate(descriptor.entries, 1):
        match = matcher.match(domain.name, descriptor.entries[:depth])
        hit = None if match is None else match.rule
        others = _others(level, hit, entry)
        why = _why_nothing(level, above, entry) if hit is None else _why(hit, entry)
        taken.append(Step(entry, hit, why, tuple(others[:MAX_OTHERS]), max(len(others) - MAX_OTHERS, 0)))
        if hit is None:
            break
        level, above = hit.rules, hit
    return taken


def why_unknown(matcher: Matcher, domain: str) -> str:
    """Why nothing limits a domain's requests if no config file defines it."""
    names = list(matcher.rules.domains)
    near = get_close_matches(domain, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "the domains are " + many_keys(names)
    return f"no config file defines domain {domain!r}; {hint}"


def _why(hit: Rule, entry: Entry) -> str:
    if _is_text_of(hit, entry):
        return "the text of the wildcard itself, which counts as an exact value"
    return _HIT[hit.kind]


def _why_nothing(level: Sequence[Rule], above: Rule | None, entry: Entry) -> str:
    if not level and above is not None:
        return f"no rule is as deep as this: {place(above)} has no descriptors under it"
    if not any(_is_for(rule, entry.key) for rule in level):
        return f"no rule here has the key {entry.key!r}; the keys are " + many_keys(rule.key for rule in level)
    return f"no rule here with the key {entry.key!r} takes this value"


def _is_for(rule: Rule, key: str) -> bool:
    return rule.key == key or (rule.kind is Kind.WILDCARD and "*" in rule.key)


def _is_text_of(rule: Rule, entry: Entry) -> bool:
    return rule.kind is Kind.WILDCARD and "*" not in rule.key and entry == (rule.key, rule.value)


def _others(level: Iterable[Rule], hit: Rule | None, entry: Entry) -> list[Other]:
    """The other rules for the key: those that match, too, first, then those with a pattern."""
    beaten: list[Other] = []
    unlike: list[Other] = []
    other_values: list[Other] = []
    for rule in level:
        if rule is hit or not _is_for(rule, entry.key):
            continue
        if hit is not None and _matches(rule, entry):
            beaten.append(Other(rule, _lost(rule, hit, entry)))
        else:
            (other_values if rule.kind is Kind.VALUE else unlike).append(Other(rule, _DIFFERS[rule.kind]))
    return beaten + unlike + other_values


def _matches(rule: Rule, entry: Entry) -> bool:
    if rule.kind is Kind.VALUE:  # of which there may be very many
        return entry == (rule.key, rule.value or "")
    alone = Matcher(RuleSet({"": Domain("", rules=(rule,))}))
    return alone.match("", [entry]) is not None


def _lost(rule: Rule, hit: Rule, entry: Entry) -> str:
    if hit.kind in _EXACT or _is_text_of(hit, entry):
        return "matches, too, but an exact value wins"
    if hit.kind is Kind.SHA256:
        return "matches, too, but a digest wins"
    if rule.kind is Kind.ANY:
        return "matches, too, but the bare key is asked last"
    if hit.kind is Kind.CIDR:
        longer = rule.kind is Kind.CIDR
        return "matches, too, but a longer prefix wins" if longer else "matches, too, but a network wins"
    return "matches, too, but an earlier pattern wins"


def describe(other: Other, domain: Domain, entry: Entry, masking: Masking) -> str:
    """`FILE:LINE, KEY=VALUE: WHY`."""
    return f"{place(other.rule)} ({rule_in_words(other.rule, domain, entry.value, masking)}): {other.why}"
