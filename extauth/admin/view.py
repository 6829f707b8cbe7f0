"""The rules in force as plain data, with the values that they match masked: they may be API keys."""

from collections.abc import Callable
from typing import Any

from extauth.rules.model import Domain, Limit, Rule, RuleSet

Fingerprint = Callable[[str], str]
"""A value → what stands for it in the store's key names."""


def view_rules(rules: RuleSet, fingerprint: Fingerprint) -> dict[str, Any]:
    """A JSON-ready view of all domains."""
    return {"domains": [_domain(domain, fingerprint) for domain in rules.domains.values()]}


def _domain(domain: Domain, fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        "domain": domain.name,
        "file": domain.file,
        "labels": list(domain.labels),
        "tiers": {tier.name: _limit(tier.limit) for tier in domain.tiers},
        "descriptors": [_rule(rule, fingerprint) for rule in domain.rules],
    }


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
    view: dict[str, Any] = {"key": rule.key}
    if rule.value is not None:
        view |= {"value": mask(rule.value), "fingerprint": fingerprint(rule.value)}
    if rule.tier is not None:
        view["tier"] = rule.tier
    if rule.limit is not None:
        view["rate_limit"] = _limit(rule.limit)
    if rule.rules:
        view["descriptors"] = [_rule(inner, fingerprint) for inner in rule.rules]
    return view | {"line": rule.line}


def mask(value: str) -> str:
    """Enough of a value to tell it from its neighbours: two characters of a long one, nothing of a short one."""
    return f"{value[:2]}***" if len(value) >= 8 else "***"
