"""What the admin pages show of the rules."""

import json

from extauth.admin.rules_json import view_rules
from extauth.config.merge import load_rules
from extauth.rules.masking import Masking


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
