"""What a config file says, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from extauth.config.merge import load_rules
from extauth.errors import ConfigError, Place
from extauth.rules.model import Algorithm, Domain, Kind, Limit, Rule, RuleSet, Tier, Unit

SHIPPED = Path(__file__).parents[2] / "envoy/descriptors/api.yaml"


def load(text: str) -> Domain:
    (domain,) = load_rules({"f.yaml": text}).domains.values()
    return domain


def test_the_shipped_file() -> None:
    domain = load(SHIPPED.read_text())
    anonymous = Limit(2, Unit.MINUTE, Algorithm.GCRA, count_denied=False, name="anonymous")
    free = Limit(10, Unit.MINUTE, Algorithm.GCRA, count_denied=False, name="free", replaces=("anonymous",))
    premium = Limit(20, Unit.MINUTE, Algorithm.GCRA, count_denied=False, name="premium", replaces=("anonymous",))
    assert domain.name == "api"
    assert domain.labels == ("path",)
    assert domain.tiers == (Tier("anonymous", anonymous), Tier("free", free), Tier("premium", premium))
    assert [(r.key, r.value, r.tier, r.limits) for r in domain.rules] == [
        ("api_key", "free-tier-key", "free", (free,)),
        ("api_key", "premium-tier-key", "premium", (premium,)),
        ("masked_remote_address", None, "anonymous", (anonymous,)),
    ]


def test_counters_lie_together_where_one_of_a_domains_files_says_so() -> None:
    texts = {"a.yaml": "domain: d", "b.yaml": "domain: d\ntogether: true", "c.yaml": "domain: e"}
    rules = load_rules(texts, merge=True)
    assert {name: domain.together for name, domain in rules.domains.items()} == {"d": True, "e": False}


def test_a_plain_reference_file() -> None:
    text = """
domain: mongo_cps
descriptors:
  - key: database
    value: users
    rate_limit: {unit: SECOND, requests_per_unit: 500, name: users, replaces: [{name: all}]}
    descriptors:
      - key: table
        rate_limit:
          unit: week
          requests_per_unit: 5
  - key: database
    value:
"""
    users = Limit(500, Unit.SECOND, Algorithm.FIXED_WINDOW, count_denied=True, name="users", replaces=("all",))
    table = Rule("table", limits=(Limit(5, Unit.WEEK),), place=Place("f.yaml", 8, 9))
    assert load(text).rules == (
        Rule("database", value="users", kind=Kind.VALUE, limits=(users,), rules=(table,), place=Place("f.yaml", 4, 5)),
        Rule("database", place=Place("f.yaml", 12, 5)),
    )


@pytest.mark.parametrize(
    ("head", "own", "algorithm", "count_denied"),
    [
        ("", "", Algorithm.FIXED_WINDOW, True),
        ("algorithm: gcra", "", Algorithm.GCRA, False),
        ("algorithm: gcra", ", algorithm: fixed_window", Algorithm.FIXED_WINDOW, True),
        ("", ", algorithm: gcra", Algorithm.GCRA, False),
        ("count_denied: false", "", Algorithm.FIXED_WINDOW, False),
        ("algorithm: gcra\ncount_denied: true", "", Algorithm.GCRA, True),
        ("count_denied: true", ", count_denied: no", Algorithm.FIXED_WINDOW, False),
    ],
)
def test_defaults_of_the_file_and_of_the_algorithm(
    head: str, own: str, algorithm: Algorithm, count_denied: bool
) -> None:
    limit = (
        load(f"domain: d\n{head}\ndescriptors: [{{key: k, rate_limit: {{unit: day, requests_per_unit: 1{own}}}}}]")
        .rules[0]
        .limits[0]
    )
    assert limit == Limit(1, Unit.DAY, algorithm, count_denied=count_denied)


def test_values_are_the_text_that_stands_there() -> None:
    text = "domain: d\ndescriptors: [{key: k, value: 010}, {key: k, value: yes}, {key: k, value: 2026-01-01}]"
    assert [rule.value for rule in load(text).rules] == ["010", "yes", "2026-01-01"]


def test_several_files() -> None:
    rules = load_rules({"b.yaml": "domain: b", "a.yaml": "domain: a\ndescriptors: [{key: k}, {key: l}]"})
    assert sorted(rules.domains) == ["a", "b"]
    assert [rule.key for rule in rules] == ["k", "l"]
    assert len(rules) == 2


def test_rules_are_walked_outer_before_inner() -> None:
    text = "domain: d\ndescriptors: [{key: a, descriptors: [{key: b}]}, {key: c}]"
    assert [rule.key for rule in load_rules({"f.yaml": text})] == ["a", "b", "c"]


MISTAKES = Path(__file__).parent / "invalid"


@pytest.mark.parametrize("file", sorted(MISTAKES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_mistake_is_named_with_its_place_and_fix(file: Path) -> None:
    """Beside each file with a mistake stands what is said of it."""
    with pytest.raises(ConfigError) as raised:
        load_rules({file.name: file.read_text()})
    assert f"{raised.value}\n" == file.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "f.yaml:1:201: the file nests deeper than 200 levels; write it flatter"),
        (
            "a: &a " + "[" * 150 + "]" * 150 + "\nb: " + "[" * 60 + "*a" + "]" * 60,
            "f.yaml:2:64: the file nests deeper than 200 levels; write it flatter",
        ),
        (
            "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: " + "9" * 5000 + "}}]",
            "f.yaml:2:67: 'requests_per_unit' must be at most 4294967295",
        ),
    ],
    ids=["nesting", "nesting by aliases", "digits"],
)
def test_what_is_too_large_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_rules({"f.yaml": text})
    assert str(raised.value) == said


LIMIT = "rate_limit: {unit: day, requests_per_unit: 1}"
WARNINGS = {
    "a key twice": (
        "domain: d\ndomain: e",
        "f.yaml:2:1: the key 'domain' appears twice in one mapping; the last one applies; keep one of the two",
    ),
    "two documents": (
        "domain: e\n---\ndomain: d",
        "f.yaml:2:1: only the file's first document is read; remove the line ---, or split the file",
    ),
    "what is no YAML after the document": (
        "domain: e\n---\n@",
        "f.yaml:2:1: only the file's first document is read; remove the line ---, or split the file",
    ),
    "a key where it has no effect": (
        f"domain: e\ndescriptors: [{{key: k, unit: day, {LIMIT}}}]",
        "f.yaml:2:24: 'unit' has no effect here (envoyproxy/ratelimit ignores it too); it belongs to rate_limit",
    ),
    "shadow mode in a limit": (
        "domain: e\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 1, shadow_mode: true}}]",
        (
            "f.yaml:2:70: 'shadow_mode' has no effect here (envoyproxy/ratelimit ignores it too); "
            "it belongs to a descriptor"
        ),
    ),
    "shadow mode without a limit": (
        "domain: e\ndescriptors: [{key: k, shadow_mode: true}]",
        "f.yaml:2:24: shadow_mode has no effect without a limit; remove it",
    ),
    "no number": (
        "domain: e\ndescriptors: [{key: k, rate_limit: {unit: day}}]",
        "f.yaml:2:36: 'requests_per_unit' is missing, so everything is denied; add requests_per_unit: …",
    ),
    "replacing nothing": (
        (
            "domain: e\ntiers: {a: {unit: day, requests_per_unit: 1, replaces: [{name: anonymus}]},"
            " anonymous: {unit: day, requests_per_unit: 1}}"
        ),
        "f.yaml:2:64: no limit is named 'anonymus', so nothing is replaced; did you mean 'anonymous'?",
    ),
}


@pytest.mark.parametrize(("text", "warning"), WARNINGS.values(), ids=WARNINGS)
def test_what_looks_like_a_mistake_is_a_warning(text: str, warning: str) -> None:
    rules = load_rules({"f.yaml": text})
    assert list(map(str, rules.warnings)) == [warning]
    assert list(rules.domains) == ["e"]


def test_all_problems_of_all_files_come_at_once() -> None:
    texts = {"b.yaml": "domain: d\ntears: {}\nlabels: 3", "a.yaml": "", "c.yaml": "domain: d", "d.yaml": "domain: d"}
    with pytest.raises(ConfigError) as raised:
        load_rules(texts)
    assert [problem.place[:2] for problem in raised.value.problems] == [
        ("a.yaml", 1),
        ("b.yaml", 2),
        ("b.yaml", 3),
        ("c.yaml", 1),
        ("d.yaml", 1),
    ]
    assert raised.value.problems[-1].message == "domain 'd' is already defined in b.yaml"


def test_only_the_first_problems_of_a_file_are_told() -> None:
    with pytest.raises(ConfigError) as raised:
        load_rules(
            {"f.yaml": "domain: d\ndescriptors:\n" + "".join(f"- {{key: k{i}, wrong: 1}}\n" for i in range(1000))}
        )
    assert len(raised.value.problems) == 51
    assert "f.yaml: 1000 problems; showing the first 50" in map(str, raised.value.problems)


def test_aliases_are_followed() -> None:
    limit = "&l {unit: day, requests_per_unit: 1}"
    text = f"domain: d\ndescriptors: [{{key: a, rate_limit: {limit}}}, {{key: b, rate_limit: *l}}]"
    assert [rule.limits for rule in load(text).rules] == [(Limit(1, Unit.DAY),), (Limit(1, Unit.DAY),)]


def test_what_a_merged_limit_does_not_name_stays() -> None:
    text = """
domain: d
descriptors:
  - &base {key: a, rate_limit: {unit: minute, requests_per_unit: 10, name: n, replaces: [{name: m}]}, metadata: {x: 1}}
  - {<<: *base, key: b, rate_limit: {unit: hour}, metadata: {y: 2}}
  - {<<: *base, key: c, rate_limit: {requests_per_unit: 5, replaces: []}}
  - {key: m, rate_limit: {unit: day, requests_per_unit: 1, name: m}}
"""
    rules = load_rules({"f.yaml": text})
    assert rules.warnings == ()
    _, b, c, _ = rules.domains["d"].rules
    assert b.limits == (Limit(10, Unit.HOUR, name="n", replaces=("m",)),)
    assert b.metadata == {"x": 1, "y": 2}
    assert c.limits == (Limit(5, Unit.MINUTE, name="n"),)


def test_scalars_that_only_look_like_numbers() -> None:
    text = "domain: d\ndescriptors: [{key: k, value: 7e12345}, {key: k, value: ._5}, {key: k, value: 1:30}]"
    assert [rule.value for rule in load(text).rules] == ["7e12345", "._5", "1:30"]


def test_keys_of_metadata_are_the_text_that_stands_there_and_below_as_go_prints_them() -> None:
    text = "domain: d\ndescriptors: [{key: k, metadata: {on: 1, 0x10: 2, in: {on: 1, 0x10: 2, 1e3: 3, ~: 4}}}]"
    assert load(text).rules[0].metadata == {"on": 1, "0x10": 2, "in": {"true": 1, "16": 2, "1000": 3, "<nil>": 4}}


def test_very_many_unknown_names_cost_little() -> None:
    limits = (
        f"- {{key: k{i}, rate_limit: {{unit: day, requests_per_unit: 1, name: n{i}, replaces: [{{name: x{i}}}]}}}}"
        for i in range(3000)
    )
    rules = load_rules({"f.yaml": "domain: d\ndescriptors:\n" + "\n".join(limits)})
    assert len(rules.warnings) == 51


def test_merge_keys() -> None:
    text = """
domain: d
descriptors:
  - &base {key: a, rate_limit: {unit: day, requests_per_unit: 1}}
  - {<<: *base, key: b}
  - {<<: [{key: c, value: x}, *base]}
  - {key: d, <<: {value: y}}
"""
    limit = (Limit(1, Unit.DAY),)
    assert [(rule.key, rule.value, rule.limits) for rule in load(text).rules] == [
        ("a", None, limit),
        ("b", None, limit),
        ("c", "x", limit),
        ("d", "y", ()),
    ]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="more than 10569 values once its aliases are followed"):
        load_rules({"f.yaml": "\n".join(lines)})


def test_no_files_are_no_rules() -> None:
    assert load_rules({}) == RuleSet({})


def test_the_same_rules_have_the_same_hash() -> None:
    text, other = "domain: d\ndescriptors: [{key: a}]", "domain: d\ndescriptors: [{key: b}]"
    assert load_rules({"x/f.yaml": text}).digest == load_rules({"y/g.yaml": text}).digest
    assert load_rules({"f.yaml": text}).digest != load_rules({"f.yaml": other}).digest
