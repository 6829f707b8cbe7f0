"""The config's `on_store_failure`: of a file, and of each of its limits."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.admin.rules_json import view_rules
from extauth.cli import app
from extauth.config.merge import load_rules
from extauth.errors import ConfigError
from extauth.rules.masking import Masking
from extauth.rules.model import Limit, OnStoreFailure, RuleSet, Unit
from tests.support.service import planner_of

LOCAL, ALLOW, DENY, ERROR = OnStoreFailure.LOCAL, OnStoreFailure.ALLOW, OnStoreFailure.DENY, OnStoreFailure.ERROR
SEVERAL = """domain: d
on_store_failure: deny
tiers: {free: {unit: day, requests_per_unit: 1, on_store_failure: local}}
descriptors:
  - {key: a, tier: free}
  - {key: b, rate_limit: {unit: day, requests_per_unit: 2}}
  - key: c
    rate_limits:
      - {unit: day, requests_per_unit: 3, on_store_failure: error}
      - {unit: hour, requests_per_unit: 4}
  - {key: d, rate_limit: {unlimited: true}}
"""


def policies(rules: RuleSet) -> list[list[OnStoreFailure | None]]:
    return [[limit.on_store_failure for limit in rule.limits] for rule in rules]


def limit(own: str) -> str:
    return f"rate_limit: {{unit: day, requests_per_unit: 1{own and ', on_store_failure: ' + own}}}"


@pytest.mark.parametrize(
    ("head", "own", "policy"),
    [
        ("", "", None),
        ("on_store_failure:", "~", None),
        ("on_store_failure: deny", "", DENY),
        ("on_store_failure: deny", "error", ERROR),
        ("on_store_failure: deny", "deny", DENY),
        ("", "local", LOCAL),
        ("", "allow", ALLOW),
        ("", "deny", DENY),
        ("", "error", ERROR),
    ],
)
def test_a_limit_has_its_own_policy_or_its_files(head: str, own: str, policy: OnStoreFailure | None) -> None:
    rules = load_rules({"f.yaml": f"domain: d\n{head}\ndescriptors: [{{key: k, {limit(own)}}}]"})
    assert policies(rules) == [[policy]]
    assert rules.warnings == ()


def test_every_kind_of_limit_has_one_except_the_unlimited() -> None:
    rules = load_rules({"f.yaml": SEVERAL})
    assert policies(rules) == [[LOCAL], [DENY], [ERROR, DENY], [None]]
    domain = rules.domains["d"]
    assert (domain.on_store_failure, domain.tiers[0].limit.on_store_failure) == (DENY, LOCAL)


def test_limits_of_different_policies_are_different() -> None:
    limits = [Limit(1, Unit.DAY, on_store_failure=policy) for policy in (None, *OnStoreFailure)]
    assert len(set(limits)) == len({hash(each) for each in limits}) == 5
    assert Limit(1, Unit.DAY, on_store_failure=DENY) == Limit(1, Unit.DAY, on_store_failure=OnStoreFailure("deny"))


@pytest.mark.parametrize(
    ("head", "policy"), [("", None), ("on_store_failure: error", ERROR), ("on_store_failure: local", LOCAL)]
)
def test_a_limit_that_a_request_brings_with_it_has_the_files(head: str, policy: OnStoreFailure | None) -> None:
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=2, unit=RateLimitUnit.MINUTE)
    descriptor = RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key="k", value="v")], limit=override)
    planner = planner_of(f"domain: d\n{head}\ndescriptors: [{{key: k, {limit('deny')}}}]")
    plan = planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor])))
    assert [check.limit for check in plan.template.checks] == [Limit(2, Unit.MINUTE, on_store_failure=policy)]


def test_in_merged_files_it_is_of_the_files_own_limits_and_the_firsts_is_of_those_that_requests_bring() -> None:
    texts = {
        name: f"domain: d\n{head}\ndescriptors: [{{key: {name}, {limit('')}}}]"
        for name, head in (("a", "on_store_failure: deny"), ("b", "on_store_failure: error"), ("c", ""))
    }
    rules = load_rules(texts, merge=True)
    assert policies(rules) == [[DENY], [ERROR], [None]]
    assert rules.domains["d"].on_store_failure is DENY


def test_tiers_of_one_name_must_have_one_policy() -> None:
    texts = {
        name: f"domain: d\ntiers: {{free: {{unit: day, requests_per_unit: 1, on_store_failure: {policy}}}}}"
        for name, policy in (("a", DENY), ("b", ALLOW))
    }
    with pytest.raises(ConfigError, match="the tier 'free' differs from the one in a; make them the same"):
        load_rules(texts, merge=True)


def test_the_rules_as_json_show_it_where_it_holds() -> None:
    view: dict[str, Any] = json.loads("".join(view_rules(load_rules({"f.yaml": SEVERAL}), Masking())))
    (domain,) = view["domains"]
    a, b, c, d = domain["descriptors"]
    assert domain["on_store_failure"] == "deny"
    assert domain["tiers"]["free"]["on_store_failure"] == a["rate_limit"]["on_store_failure"] == "local"
    assert b["rate_limit"]["on_store_failure"] == "deny"
    assert [each["on_store_failure"] for each in c["rate_limits"]] == ["error", "deny"]
    plain = "".join(view_rules(load_rules({"f.yaml": f"domain: d\ndescriptors: [{{key: k, {limit('')}}}]"}), Masking()))
    assert "on_store_failure" not in json.dumps(d) + plain


def test_explain_names_the_policy_of_a_limit_that_has_one(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"domain: d\ndescriptors: [{{key: k, {limit('deny')}}}, {{key: l, {limit('')}}}]")
    told = CliRunner().invoke(app, ["explain", "--config", str(file), "d", "k=v", "l=v"]).stdout
    assert told.count("denied hits count, too; on store failure: deny\n") == 1
    assert told.count("on store failure") == 1
