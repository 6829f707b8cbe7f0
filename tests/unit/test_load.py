"""What a config file says, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from extauth.errors import ConfigError
from extauth.rules.load import load_rules
from extauth.rules.model import Algorithm, Domain, Limit, Rule, RuleSet, Tier, Unit

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
    assert [(r.key, r.value, r.tier, r.limit) for r in domain.rules] == [
        ("api_key", "free-tier-key", "free", free),
        ("api_key", "premium-tier-key", "premium", premium),
        ("masked_remote_address", None, "anonymous", anonymous),
    ]


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
    assert load(text).rules == (
        Rule(
            "database",
            "users",
            Limit(500, Unit.SECOND, Algorithm.FIXED_WINDOW, count_denied=True, name="users", replaces=("all",)),
            rules=(Rule("table", None, Limit(5, Unit.WEEK), file="f.yaml", line=8),),
            file="f.yaml",
            line=4,
        ),
        Rule("database", None, None, file="f.yaml", line=12),
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
        .limit
    )
    assert limit == Limit(1, Unit.DAY, algorithm, count_denied)


def test_values_are_the_text_that_stands_there() -> None:
    text = "domain: d\ndescriptors: [{key: k, value: 010}, {key: k, value: yes}, {key: k, value: 1.50}]"
    assert [rule.value for rule in load(text).rules] == ["010", "yes", "1.50"]


def test_several_files() -> None:
    rules = load_rules({"b.yaml": "domain: b", "a.yaml": "domain: a\ndescriptors: [{key: k}, {key: l}]"})
    assert sorted(rules.domains) == ["a", "b"]
    assert [rule.key for rule in rules] == ["k", "l"]
    assert len(rules) == 2


def test_rules_are_walked_outer_before_inner() -> None:
    text = "domain: d\ndescriptors: [{key: a, descriptors: [{key: b}]}, {key: c}]"
    assert [rule.key for rule in load_rules({"f.yaml": text})] == ["a", "b", "c"]


LIMIT = "{unit: minute, requests_per_unit: 1}"
MISTAKES = {
    "an empty file": ("", "f.yaml:1:1: the file is empty; write `domain: NAME` and `descriptors:`"),
    "a file of comments": ("# nothing yet\n", "f.yaml:1:1: the file is empty; write `domain: NAME` and `descriptors:`"),
    "not YAML": (
        "domain: [",
        (
            "f.yaml:2:1: not YAML: while parsing a flow node did not find expected node content; "
            "check the indentation, brackets and quotes here and on the lines above"
        ),
    ),
    "a tab": (
        "domain: d\n\tdescriptors: []",
        (
            "f.yaml:2:1: not YAML: while scanning a plain scalar found a tab character that violates indentation; "
            "indent with spaces"
        ),
    ),
    "a sign": (
        "domain: @d",
        (
            "f.yaml:1:9: not YAML: while scanning for the next token found '@', which cannot start any token; "
            "indent with spaces, and quote a value that begins with a sign"
        ),
    ),
    "an alias of nothing": (
        "domain: *d",
        "f.yaml:1:9: not YAML: the alias *d names no anchor; write &d before it",
    ),
    "two documents": (
        "domain: a\n---\ndomain: b",
        (
            "f.yaml:2:1: not YAML: a single document is expected, and here begins another; "
            "remove the line ---, or split the file"
        ),
    ),
    "a list for a file": ("- domain: a", "f.yaml:1:1: the file must be a mapping"),
    "no domain": ("descriptors: []", "f.yaml:1:1: 'domain' is missing; add domain: …"),
    "an empty domain": ("domain: ''", "f.yaml:1:9: 'domain' must not be empty"),
    "a misspelt key": (
        "domain: d\ndescripters: []",
        "f.yaml:2:1: unknown key 'descripters'; did you mean 'descriptors'?",
    ),
    "a key like no other": (
        "domain: d\ndescriptors: [{key: k, xyz: 1}]",
        "f.yaml:2:24: unknown key 'xyz'; the keys here are key, value, rate_limit, tier, descriptors",
    ),
    "a misspelt key in a limit": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {units: day, requests_per_unit: 1}}]",
        "f.yaml:2:36: 'unit' is missing; add unit: …\nf.yaml:2:37: unknown key 'units'; did you mean 'unit'?",
    ),
    "a key that is a number": ("domain: d\n1: 2", "f.yaml:2:1: a key must be a string; quote it"),
    "a key twice": (
        "domain: d\ndomain: e",
        "f.yaml:2:1: the key 'domain' stands twice in one mapping; keep one of the two",
    ),
    "no descriptor key": ("domain: d\ndescriptors: [{value: v}]", "f.yaml:2:15: 'key' is missing; add key: …"),
    "an empty descriptor key": ("domain: d\ndescriptors: [{key: ''}]", "f.yaml:2:21: 'key' must not be empty"),
    "a descriptor that is none": (
        "domain: d\ndescriptors: [k]",
        "f.yaml:2:15: each item of 'descriptors' must be a mapping",
    ),
    "descriptors that are no list": (
        "domain: d\ndescriptors: {key: k}",
        "f.yaml:2:14: 'descriptors' must be a list; start each item with '- '",
    ),
    "a descriptor twice": (
        "domain: d\ndescriptors:\n- {key: k, value: v}\n- {key: k}\n- {key: k, value: v}",
        "f.yaml:5:3: the descriptor k with this value already stands on line 3; keep one of the two",
    ),
    "an invalid unit": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: foo, requests_per_unit: 1}}]",
        "f.yaml:2:43: invalid unit 'foo'; write one of second, minute, hour, day, week, month, year",
    ),
    "a negative number": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: -1}}]",
        "f.yaml:2:67: 'requests_per_unit' must be 0, 1, 2, …, not '-1'; write digits, without quotes",
    ),
    "a number that is too large": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 4294967296}}]",
        "f.yaml:2:67: 'requests_per_unit' must be at most 4294967295, not 4294967296",
    ),
    "a number that is a string": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: '1'}}]",
        "f.yaml:2:67: 'requests_per_unit' must be 0, 1, 2, …, not '1'; write digits, without quotes",
    ),
    "a number that is a list": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: [1]}}]",
        "f.yaml:2:67: 'requests_per_unit' must be 0, 1, 2, …, not a list; write digits, without quotes",
    ),
    "a tier's name that no header can carry": (
        'domain: d\ntiers: {"a\\r": {unit: day, requests_per_unit: 1}}',
        "f.yaml:2:9: 'a\\r' cannot name a tier, which stands in headers; use up to 64 of A-Z a-z 0-9 _ . -",
    ),
    "a wildcard": (
        "domain: d\ndescriptors: [{key: k, value: a*}]",
        "f.yaml:2:31: wildcards (a value with *) are not supported; name the values one by one",
    ),
    "an unknown algorithm": (
        "domain: d\nalgorithm: leaky",
        "f.yaml:2:12: unknown algorithm 'leaky'; write one of fixed_window, gcra",
    ),
    "a flag that is none": ("domain: d\ncount_denied: 1", "f.yaml:2:15: 'count_denied' must be true or false, not '1'"),
    "an unknown label": (
        "domain: d\nlabels: [method]",
        "f.yaml:2:10: unknown label 'method'; the metrics have one label to fill: path",
    ),
    "a rule for a label": (
        f"domain: d\nlabels: [path]\ndescriptors: [{{key: path, rate_limit: {LIMIT}}}]",
        "f.yaml:3:21: 'path' is one of `labels`, so no rule of its own can apply; remove the rule, or the label",
    ),
    "an unknown tier": (
        f"domain: d\ntiers: {{premium: {LIMIT}}}\ndescriptors: [{{key: k, tier: premum}}]",
        "f.yaml:3:30: unknown tier 'premum'; did you mean 'premium'?",
    ),
    "a tier where there are none": (
        "domain: d\ndescriptors: [{key: k, tier: free}]",
        "f.yaml:2:30: unknown tier 'free'; the tiers are none yet",
    ),
    "a tier with a name": (
        "domain: d\ntiers: {free: {unit: day, requests_per_unit: 1, name: f}}",
        "f.yaml:2:49: a tier's name is its key; remove `name`",
    ),
    "tier and limit": (
        f"domain: d\ntiers: {{free: {LIMIT}}}\ndescriptors: [{{key: k, tier: free, rate_limit: {LIMIT}}}]",
        "f.yaml:3:24: a descriptor has a tier or a rate_limit, not both; remove one",
    ),
    "a limit that replaces itself": (
        "domain: d\ntiers: {free: {unit: day, requests_per_unit: 1, replaces: [{name: free}]}}",
        "f.yaml:2:60: the limit 'free' replaces itself; remove this item",
    ),
    "an empty name to replace": (
        "domain: d\ntiers: {free: {unit: day, requests_per_unit: 1, replaces: [{name: ''}]}}",
        "f.yaml:2:67: 'name' must not be empty",
    ),
    "an alias inside itself": (
        "domain: d\ntiers: &a {x: *a}",
        "f.yaml:2:15: an alias stands inside what it names; write it out",
    ),
    "deep nesting": ("[" * 100_000, "f.yaml:1:201: the file nests deeper than 200 levels; write it flatter"),
    "deep nesting by aliases": (
        "a: &a " + "[" * 150 + "]" * 150 + "\nb: " + "[" * 60 + "*a" + "]" * 60,
        "f.yaml:2:64: the file nests deeper than 200 levels; write it flatter",
    ),
    "a control character": (
        "domain: é\nlabels: \0",
        (
            "f.yaml:2:9: not YAML: unacceptable character '\\x00'; "
            "remove it, or write it as an escape between double quotes"
        ),
    ),
    "a number of many digits": (
        "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: " + "9" * 5000 + "}}]",
        "f.yaml:2:67: 'requests_per_unit' must be at most 4294967295, not " + "9" * 60 + "…",
    ),
    "a tier without a name": (
        f"domain: d\ntiers: {{'': {LIMIT}}}",
        "f.yaml:2:9: a key of 'tiers' must not be empty",
    ),
    "a tier of nothing": ("domain: d\ntiers: {free: }", "f.yaml:2:9: 'free' must be a mapping"),
    "a tier left empty": (
        "domain: d\ndescriptors:\n- key: k\n  tier:\n",
        "f.yaml:4:3: 'tier' must be a string, not nothing",
    ),
    "a misspelt key in a tier that bears a key's name": (
        "domain: d\ntiers: {descriptors: {unit: day, requests_per_units: 1}}",
        (
            "f.yaml:2:22: 'requests_per_unit' is missing; add requests_per_unit: …\n"
            "f.yaml:2:34: unknown key 'requests_per_units'; did you mean 'requests_per_unit'?"
        ),
    ),
    "an unknown key with nothing after it": (
        "domain: d\ndescripters:\n",
        "f.yaml:2:1: unknown key 'descripters'; did you mean 'descriptors'?",
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place_and_fix(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_rules({"f.yaml": text})
    assert str(raised.value).startswith(expected)
    assert len(raised.value.problems) == expected.count("\n") + 1


def test_all_problems_of_all_files_come_at_once() -> None:
    texts = {"b.yaml": "domain: d\ntears: {}\nlabels: 3", "a.yaml": "", "c.yaml": "domain: d", "d.yaml": "domain: d"}
    with pytest.raises(ConfigError) as raised:
        load_rules(texts)
    assert [(p.file, p.line) for p in raised.value.problems] == [
        ("a.yaml", 1),
        ("b.yaml", 2),
        ("b.yaml", 3),
        ("d.yaml", 1),
    ]
    assert raised.value.problems[-1].message == "domain 'd' already stands in c.yaml"


def test_only_the_first_problems_of_a_file_are_told() -> None:
    with pytest.raises(ConfigError) as raised:
        load_rules({"f.yaml": "domain: d\ndescriptors:\n" + "- {key: k, wrong: 1}\n" * 1000})
    assert len(raised.value.problems) == 51
    assert "f.yaml: 1000 problems, of which 50 are told" in map(str, raised.value.problems)


def test_replacing_nothing_is_a_warning() -> None:
    text = """
domain: d
tiers:
  anonymous: {unit: day, requests_per_unit: 1}
  free: {unit: day, requests_per_unit: 1, replaces: [{name: anonymus}]}
"""
    rules = load_rules({"f.yaml": text})
    assert list(map(str, rules.warnings)) == [
        "f.yaml:5:61: no limit is named 'anonymus', so nothing is replaced; did you mean 'anonymous'?"
    ]


def test_aliases_are_followed() -> None:
    limit = "&l {unit: day, requests_per_unit: 1}"
    text = f"domain: d\ndescriptors: [{{key: a, rate_limit: {limit}}}, {{key: b, rate_limit: *l}}]"
    assert [rule.limit for rule in load(text).rules] == [Limit(1, Unit.DAY), Limit(1, Unit.DAY)]


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="more than 10569 values once its aliases are followed"):
        load_rules({"f.yaml": "\n".join(lines)})


def test_no_files_are_no_rules() -> None:
    assert load_rules({}) == RuleSet({})
