"""The index of rules by their names agrees with the names that the matcher gives to what requests hit."""

import pytest

from extauth.config.merge import load_rules
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.rule_index import index_rules

CONFIG = """
domain: d
descriptors:
  - {key: api_key, value: a-secret-key, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: plan, values: [gold, silver], rate_limit: {unit: minute, requests_per_unit: 2}}
  - key: plan
    value: bronze
    rate_limit: {unit: minute, requests_per_unit: 3}
    descriptors:
      - {key: path, rate_limit: {unit: minute, requests_per_unit: 4}}
      - {key: verb, values: [get, put], rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: host, value_regex: "[a-z]+", rate_limit: {unit: minute, requests_per_unit: 6}}
  - {key: size, value_range: {start: 0, end: 9}, rate_limit: {unit: minute, requests_per_unit: 7}}
  - {key: page, value: "/a*", rate_limit: {unit: minute, requests_per_unit: 8}}
  - {key: any, rate_limit: {unit: minute, requests_per_unit: 9}}
  - {key: user, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 10}}
  - key: outer
    values: [x, y]
    descriptors:
      - {key: inner, rate_limit: {unit: minute, requests_per_unit: 11}}
  - {key: unlimited, rate_limit: {unlimited: true}}
  - {key: nothing}
"""
HITS = [
    [("api_key", "a-secret-key")],
    [("plan", "gold")],
    [("plan", "silver")],
    [("plan", "bronze")],
    [("plan", "bronze"), ("path", "/x")],
    [("plan", "bronze"), ("verb", "put")],
    [("host", "abc")],
    [("size", "5")],
    [("page", "/about")],
    [("any", "thing")],
    [("outer", "y"), ("inner", "1")],
    [("unlimited", "1")],
]


@pytest.mark.parametrize("entries", HITS, ids=str)
def test_what_a_request_hits_is_found_by_its_name(entries: list[tuple[str, str]]) -> None:
    rules, masking = load_rules({"f.yaml": CONFIG}), Masking()
    matcher = Matcher(rules, masking)
    match = matcher.match("d", entries)
    assert match is not None
    name = matcher.name(match, "d", entries)
    assert index_rules(rules, masking)["d", name.name] is match.rule


def test_it_has_nothing_else_and_no_secret() -> None:
    index = index_rules(load_rules({"f.yaml": CONFIG}), Masking())
    assert len(index) == len(HITS) + len(["plan_bronze.verb_get", "outer_x.inner"])
    assert "a-secret-key" not in str(list(index))


def test_it_ends_where_it_is_full() -> None:
    assert list(index_rules(load_rules({"f.yaml": CONFIG}), Masking(), most=3)) == [
        ("d", f"api_key_{Masking().mask('a-secret-key')}"),
        ("d", "plan_gold"),
        ("d", "plan_silver"),
    ]
