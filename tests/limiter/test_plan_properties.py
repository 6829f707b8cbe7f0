"""Matching beside a slow and obvious reading of the rules."""

import re
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any

import yaml
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.config.merge import load_rules
from extauth.limiter.build import LimiterOptions
from extauth.rules.matcher import Matcher
from tests.support.service import planner_of

keys = st.sampled_from(["a", "a", "a", "a", "b", "a_b"])
key_patterns = st.sampled_from(["a*", "*b", "a*b", "*"])
values = st.sampled_from(["", "1", "2", "12", "x", "xy", "x*", "_", "b_1", "é"])
LIMIT = {"unit": "day", "requests_per_unit": 1}
LIMITS = [LIMIT, {**LIMIT, "name": "n"}, {**LIMIT, "replaces": [{"name": "n"}]}, {"unlimited": True}]

matches = st.one_of(
    st.just({}),
    st.builds(lambda value: {"value": value} if value else {}, values),
    st.builds(lambda value: {"value": value}, st.sampled_from(["*", "x*", "*y", "1*", "x*y*", "*_*"])),
    st.builds(lambda several: {"values": several}, st.lists(values.filter(bool), min_size=1, max_size=3, unique=True)),
    st.builds(lambda value: {"value_sha256": sha256(value.encode()).hexdigest()}, values),
    st.builds(lambda regex: {"value_regex": regex}, st.sampled_from(["[0-9]+", "x.?", ".*", "é|_"])),
    st.builds(
        lambda start, size: {"value_range": {"start": start, "end": start + size}},
        st.integers(-3, 13),
        st.integers(1, 9),
    ),
)


by_key = st.tuples(keys, matches) | st.tuples(
    key_patterns,
    st.builds(lambda value: {"value": value} if value else {}, values | st.sampled_from(["*", "x*", "1*y"])),
)


@st.composite
def levels(draw: st.DrawFn, depth: int = 2) -> list[dict[str, Any]]:
    rules = []
    for key, match in draw(st.lists(by_key, max_size=8)):
        rule = {"key": key, **match}
        if draw(st.booleans()):
            rule["rate_limit"] = draw(st.sampled_from(LIMITS))
        if depth and draw(st.booleans()):
            rule["descriptors"] = draw(levels(depth - 1))
        rules.append(rule)
    return rules


def exact(rule: dict[str, Any], value: str) -> bool:
    return "*" not in rule["key"] and (
        rule.get("value") == value != ""
        or value in rule.get("values", ())
        or rule.get("value_sha256") == sha256(value.encode()).hexdigest()
    )


def pattern(rule: dict[str, Any], key: str, value: str) -> bool:
    if "*" in rule["key"]:
        wanted = f"{rule['key']}_{rule['value']}" if "value" in rule else rule["key"]
        return fnmatchcase(f"{key}_{value}", wanted.replace("[", "[[]"))
    if "*" in rule.get("value", ""):
        return fnmatchcase(value, rule["value"].replace("[", "[[]"))
    if "value_regex" in rule:
        return re.fullmatch(rule["value_regex"], value) is not None
    if "value_range" in rule:
        return re.fullmatch(r"[-+]?[0-9]+", value) is not None and int(value) in range(
            rule["value_range"]["start"], rule["value_range"]["end"]
        )
    return False


def oracle(rules: list[dict[str, Any]], entries: list[tuple[str, str]]) -> dict[str, Any] | None:
    """The rule at the depth of the entries: an exact one, else the first pattern, else the bare key."""
    rule = None
    for key, value in entries:
        own = [rule for rule in rules if rule["key"] == key or "*" in rule["key"]]
        found = (
            # A value in clear before its digest: two rules may name one value so.
            [rule for rule in own if exact(rule, value) and "value_sha256" not in rule]
            or [rule for rule in own if exact(rule, value)]
            or [rule for rule in own if pattern(rule, key, value)]
            or [rule for rule in own if rule["key"] == key and rule.keys().isdisjoint(MATCHES)]
        )
        if not found:
            return None
        rule = found[0]
        rules = rule.get("descriptors", [])
    return rule


MATCHES = ("value", "values", "value_sha256", "value_regex", "value_range")


def without_duplicates(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a file may hold: no two rules of a level for the same thing."""
    seen: set[str] = set()
    kept = []
    for rule in rules:
        own = [f"{name}: {rule[name]}" for name in MATCHES if name in rule]
        names = {
            f"{rule['key']}, {single}" for single in [f"value: {v}" for v in rule.get("values", ())] or own or ["any"]
        }
        if seen.isdisjoint(names):
            seen |= names
            kept.append({**rule, "descriptors": without_duplicates(rule.get("descriptors", []))})
    return kept


@settings(max_examples=500, deadline=None)
@given(levels(), st.lists(st.lists(st.tuples(keys, values), min_size=1, max_size=3), min_size=1, max_size=8))
def test_the_matcher_finds_what_an_obvious_reading_finds(
    rules: list[dict[str, Any]], requests: list[list[tuple[str, str]]]
) -> None:
    rules = without_duplicates(rules)
    text = yaml.safe_dump({"domain": "d", "descriptors": rules}, sort_keys=False, allow_unicode=True)
    matcher = Matcher(load_rules({"f.yaml": text}))
    numbered = list(matcher.rules)  # outer before inner, as in the file
    flat = flatten(rules)
    assert len(numbered) == len(flat)
    for entries in requests:
        match = matcher.match("d", entries)
        want = oracle(rules, entries)
        found = None if match is None else flat[next(i for i, rule in enumerate(numbered) if rule is match.rule)]
        assert found is want, (entries, text)


def flatten(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for rule in rules for found in (rule, *flatten(rule["descriptors"]))]


def message(descriptors: list[list[tuple[str, str]]]) -> bytes:
    each = [
        RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key=k, value=v) for k, v in entries])
        for entries in descriptors
    ]
    return bytes(RateLimitRequest(domain="d", descriptors=each))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(levels(), min_size=1, max_size=3),
    st.lists(
        st.none() | st.lists(st.lists(st.tuples(keys, values), min_size=1, max_size=2), min_size=1, max_size=3),
        max_size=20,
    ),
)
def test_a_planner_that_was_swapped_plans_as_a_new_one(
    files: list[list[dict[str, Any]]], steps: list[list[list[tuple[str, str]]] | None]
) -> None:
    """None is a reload."""
    texts = [yaml.safe_dump({"domain": "d", "descriptors": without_duplicates(rules)}) for rules in files]
    options = LimiterOptions(plans_bytes=64 * 600)
    swapped, at = planner_of(texts[0], options), 0
    for descriptors in steps:
        if descriptors is None:
            at = (at + 1) % len(texts)
            swapped.swap(Matcher(load_rules({"f.yaml": texts[at]})))
            continue
        plan, want = swapped.plan(message(descriptors)), planner_of(texts[at], options).plan(message(descriptors))
        assert (plan.names, plan.checks, plan.template.counters_of) == (
            want.names,
            want.checks,
            want.template.counters_of,
        )
        assert plan.tally.rules == want.tally.rules
