"""The rules in force as JSON, with secret values masked."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from extauth.explain.limit_view import view_limit
from extauth.rules.masking import Masking
from extauth.rules.model import FLAGS, Domain, Kind, Rule, RuleSet


def view_rules(rules: RuleSet, masking: Masking) -> Iterator[str]:
    """One JSON object of all domains; each piece is a rule, a tier or a value, of which there may be very many."""
    yield '{"domains": ['
    for i, domain in enumerate(rules.domains.values()):
        view: dict[str, Any] = {"domain": domain.name, "files": list(domain.files), "labels": list(domain.labels)}
        if domain.on_store_failure is not None:
            view["on_store_failure"] = str(domain.on_store_failure)
        if domain.together:
            view["together"] = True
        if domain.name in rules.retained:
            view["kept"] = "the files of this domain have problems: its rules are those of an earlier reading"
        yield (", " if i else "") + json.dumps(view)[:-1]
        yield ', "tiers": {'
        yield from _separated(f"{json.dumps(tier.name)}: {json.dumps(view_limit(tier.limit))}" for tier in domain.tiers)
        yield "}"
        yield from _rules(domain.rules, domain, masking)
        yield "}"
    yield '], "problems": ['
    yield from _separated(json.dumps(str(problem)) for problem in rules.problems)
    yield '], "warnings": ['
    yield from _separated(json.dumps(str(warning)) for warning in rules.warnings)
    yield "]}"


def _rules(rules: Iterable[Rule], domain: Domain, masking: Masking) -> Iterator[str]:
    yield ', "descriptors": ['
    for i, rule in enumerate(rules):
        yield (", " if i else "") + json.dumps(_rule(rule, domain, masking))[:-1]
        if rule.kind is Kind.VALUES:
            yield ', "values": ['
            yield from _separated(json.dumps(_shown(str(value), rule, domain, masking)) for value in rule.values)
            yield "]"
        if rule.rules:
            yield from _rules(rule.rules, domain, masking)
        yield "}"
    yield "]"


def _separated(parts: Iterable[str]) -> Iterator[str]:
    for i, part in enumerate(parts):
        yield f", {part}" if i else part


def _shown(value: str, rule: Rule, domain: Domain, masking: Masking) -> str:
    return masking.show(value, secret=domain.secret.covers(rule.key, value))


def _rule(rule: Rule, domain: Domain, masking: Masking) -> dict[str, Any]:
    def shown(value: str) -> str:
        return _shown(value, rule, domain, masking)

    view: dict[str, Any] = {"line": rule.place.line, "key": rule.key}
    match rule.kind:
        case Kind.VALUE:
            view["value"] = shown(rule.value or "")
        case Kind.RANGE:
            view["value_range"] = dict(zip(("start", "end"), rule.values, strict=True))
        case Kind.CIDR:
            view[str(rule.kind)] = [shown(str(network)) for network in rule.values]
        case Kind.WILDCARD if rule.value is not None:
            view["value"] = shown(rule.value)
        case Kind.REGEX:
            view[str(rule.kind)] = shown(rule.value or "")
        case Kind.SHA256:
            view[str(rule.kind)] = masking.digest(rule.value or "")
    if rule.tier is not None:
        view["tier"] = rule.tier
    if len(rule.limits) == 1:
        view["rate_limit"] = view_limit(rule.limits[0])
    elif rule.limits:
        view["rate_limits"] = list(map(view_limit, rule.limits))
    for flag in FLAGS:
        if getattr(rule, flag):
            view[flag] = True
    if rule.metadata is not None:
        view["metadata"] = rule.metadata
    return view
