"""The rules in force as JSON, with the values that they match masked: they may be API keys."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from extauth.rules.model import Limit, Rule, RuleSet

Fingerprint = Callable[[str], str]
"""A value → what stands for it in the store's key names."""


def view_rules(rules: RuleSet, fingerprint: Fingerprint) -> Iterator[str]:
    """One JSON object of all domains, in pieces of a rule or less: there may be very many."""
    yield '{"domains": ['
    for i, domain in enumerate(rules.domains.values()):
        view = {
            "domain": domain.name,
            "file": domain.file,
            "labels": list(domain.labels),
            "tiers": {tier.name: _limit(tier.limit) for tier in domain.tiers},
        }
        yield (", " if i else "") + json.dumps(view)[:-1]
        yield from _rules(domain.rules, fingerprint)
        yield "}"
    yield "]}"


def _rules(rules: Iterable[Rule], fingerprint: Fingerprint) -> Iterator[str]:
    yield ', "descriptors": ['
    for i, rule in enumerate(rules):
        yield (", " if i else "") + json.dumps(_rule(rule, fingerprint))[:-1]
        if rule.rules:
            yield from _rules(rule.rules, fingerprint)
        yield "}"
    yield "]"


def _limit(limit: Limit) -> dict[str, Any]:
    return {
        "unit": str(limit.unit),
        "requests_per_unit": limit.requests_per_unit,
        "algorithm": str(limit.algorithm),
        "count_denied": limit.count_denied,
        **({"name": limit.name} if limit.name else {}),
        **({"replaces": list(limit.replaces)} if limit.replaces else {}),
    }


def _rule(rule: Rule, fingerprint: Fingerprint) -> dict[str, Any]:
    view: dict[str, Any] = {"line": rule.line, "key": rule.key}
    if rule.value is not None:
        view |= {"value": mask(rule.value), "fingerprint": fingerprint(rule.value)}
    if rule.tier is not None:
        view["tier"] = rule.tier
    if rule.limit is not None:
        view["rate_limit"] = _limit(rule.limit)
    return view


def mask(value: str) -> str:
    """Enough of a value to tell it from its neighbours: two characters of a long one, nothing of a short one."""
    return f"{value[:2]}***" if len(value) >= 8 else "***"
