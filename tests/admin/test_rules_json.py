"""The page of the rules in force: what it shows of a config."""

import json
from typing import Any

import pytest

from extauth.admin.rules_json import view_rules
from extauth.config.merge import load_rules, load_valid_domains
from extauth.rules.masking import Masking
from extauth.rules.model import RuleSet

MASKING = Masking("s")
A_DAY = {"unit": "day", "requests_per_unit": 3, "algorithm": "fixed_window", "count_denied": True}
DIGEST = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def domains(rules: RuleSet) -> list[dict[str, Any]]:
    found = json.loads("".join(view_rules(rules, MASKING)))["domains"]
    assert isinstance(found, list)
    return found


LIMIT = "rate_limit: {unit: day, requests_per_unit: 3}"
SHOWN = [
    ("{key: k, value: v}", {"value": "v"}),
    ("{key: k, value: v*}", {"value": "v*"}),
    ("{key: k, values: [a, b]}", {"values": ["a", "b"]}),
    ("{key: k, value_range: {start: 1, end: 9}}", {"value_range": {"start": 1, "end": 9}}),
    ("{key: k, value_cidr: [10.0.0.0/8, 2001:DB8::/32]}", {"value_cidr": ["10.0.0.0/8", "2001:db8::/32"]}),
    ("{key: k, value_regex: 'v[0-9]+'}", {"value_regex": "v[0-9]+"}),
    (f"{{key: k, value_sha256: {DIGEST}}}", {"value_sha256": MASKING.digest(DIGEST)}),
    (f"{{key: k, {LIMIT}}}", {"rate_limit": A_DAY}),
    ("{key: k, rate_limit: {unlimited: true}}", {"rate_limit": {"unlimited": True}}),
    (
        "{key: k, rate_limit: {unit: day, requests_per_unit: 3, algorithm: gcra, burst: 5}}",
        {
            "rate_limit": {
                **A_DAY,
                "algorithm": "gcra",
                "count_denied": False,
                "burst": 5,
            }
        },
    ),
    (
        "{key: k, rate_limit: {unit: day, requests_per_unit: 3, unit_multiplier: 2, name: n}}",
        {"rate_limit": {**A_DAY, "unit_multiplier": 2, "name": "n"}},
    ),
    (
        "{key: k, rate_limit: {unit: day, requests_per_unit: 3, replaces: [{name: t}]}}",
        {"rate_limit": {**A_DAY, "replaces": ["t"]}},
    ),
    (
        "{key: k, rate_limits: [{unit: day, requests_per_unit: 3}, {unit: hour, requests_per_unit: 3}]}",
        {"rate_limits": [A_DAY, {**A_DAY, "unit": "hour"}]},
    ),
    (f"{{key: k, shadow_mode: true, {LIMIT}}}", {"shadow_mode": True, "rate_limit": A_DAY}),
    (f"{{key: k, detailed_metric: true, {LIMIT}}}", {"detailed_metric": True, "rate_limit": A_DAY}),
    ("{key: k, metadata: {a: 1}}", {"metadata": {"a": 1}}),
    (
        "{key: k, descriptors: [{key: token, values: [token, abc]}]}",
        {"descriptors": [{"line": 4, "key": "token", "values": ["token", MASKING.mask("abc")]}]},
    ),
    (
        "{key: k, descriptors: [{key: /auth/*, value: /auth/*}]}",
        {"descriptors": [{"line": 4, "key": "/auth/*", "value": "/auth/*"}]},
    ),
    ("{key: k, tier: t}", {"tier": "t", "rate_limit": {**A_DAY, "name": "t"}}),
    (
        "{key: k, descriptors: [{key: below, value: v}]}",
        {"descriptors": [{"line": 4, "key": "below", "value": "v"}]},
    ),
]


@pytest.mark.parametrize(("descriptor", "shown"), SHOWN, ids=[descriptor for descriptor, _ in SHOWN])
def test_a_descriptor_is_shown_with_what_it_says(descriptor: str, shown: dict[str, Any]) -> None:
    text = f"domain: d\ntiers: {{t: {{unit: day, requests_per_unit: 3}}}}\ndescriptors:\n  - {descriptor}\n"
    (domain,) = domains(load_rules({"f.yaml": text}))
    assert domain["descriptors"] == [{"line": 4, "key": "k"} | shown]


def test_a_domain_that_is_kept_says_so() -> None:
    before = load_rules({"a.yaml": "domain: a\n", "b.yaml": "domain: b\n"})
    broken = load_valid_domains({"a.yaml": "domain: a\ndescriptors: 1\n", "b.yaml": "domain: b\n"}, before)
    assert {domain["domain"]: "kept" in domain for domain in domains(broken)} == {"a": True, "b": False}
    page = json.loads("".join(view_rules(broken, MASKING)))
    (problem,) = page["problems"]
    assert problem.startswith("a.yaml:2:")


def test_a_domain_whose_counters_lie_together_says_so() -> None:
    texts = {"a.yaml": "domain: a\ntogether: true\n", "b.yaml": "domain: b\ntogether: false\n"}
    found = {domain["domain"]: domain.get("together") for domain in domains(load_rules(texts))}
    assert found == {"a": True, "b": None}


def test_the_view_of_the_rules_masks_secret_values() -> None:
    text = """
domain: d
tiers: {free: {unit: day, requests_per_unit: 1}}
descriptors:
  - {key: api_key, value: secret-api-key, tier: free, descriptors: [{key: short, value: seven77}]}
"""
    masking = Masking("s")
    limit = {"unit": "day", "requests_per_unit": 1, "algorithm": "fixed_window", "count_denied": True, "name": "free"}
    assert json.loads("".join(view_rules(load_rules({"f.yaml": text}), masking))) == {
        "domains": [
            {
                "domain": "d",
                "files": ["f.yaml"],
                "labels": [],
                "tiers": {"free": limit},
                "descriptors": [
                    {
                        "key": "api_key",
                        "value": masking.mask("secret-api-key"),
                        "tier": "free",
                        "rate_limit": limit,
                        "descriptors": [{"key": "short", "value": "seven77", "line": 5}],
                        "line": 5,
                    }
                ],
            }
        ],
        "problems": [],
        "warnings": [],
    }


def test_the_view_of_the_rules_comes_in_small_pieces() -> None:
    tiers = ", ".join(f"tier{i}: {{unit: day, requests_per_unit: 1}}" for i in range(500))
    values = [f"value{i}" for i in range(500)]
    keys = "".join(f"  - {{key: key{i}, value: a}}\n" for i in range(500))
    text = f"domain: d\ntiers: {{{tiers}}}\ndescriptors:\n  - {{key: a, values: [{', '.join(values)}]}}\n{keys}"
    pieces = list(view_rules(load_rules({"f.yaml": text}), Masking("s")))
    assert max(map(len, pieces)) < 300
    (domain,) = json.loads("".join(pieces))["domains"]
    assert domain["descriptors"][0] == {"line": 4, "key": "a", "values": values}
    assert len(domain["descriptors"]) == 501
    assert len(domain["tiers"]) == 500
