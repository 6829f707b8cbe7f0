"""Which rule a descriptor hits."""

import pytest

from extauth.config.merge import load_rules
from extauth.rules.matcher import Matcher

MATCHER = Matcher(
    load_rules(
        {
            "f.yaml": """domain: d
descriptors:
  - key: a
    descriptors:
      - key: b
      - {key: b, value: x}
  - key: a
    value: x
    descriptors:
      - {key: c, value: y}
  - {key: a_x}
"""
        }
    )
)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([("a", "1")], 3),
        ([("a", "x")], 7),
        ([("a", "")], 3),
        ([("a", "1"), ("b", "1")], 5),
        ([("a", "1"), ("b", "x")], 6),
        ([("a", "1"), ("c", "y")], None),
        ([("a", "x"), ("c", "y")], 10),
        ([("a", "x"), ("b", "x")], None),  # no backtracking into the bare key
        ([("a", "1"), ("b", "x"), ("c", "y")], None),
        ([("a_x", "")], 11),
        ([("b", "x")], None),
        ([], None),
    ],
)
def test_match(entries: list[tuple[str, str]], line: int | None) -> None:
    match = MATCHER.match("d", entries)
    assert (match and match.rule.place.line) == line


KEY_PATTERNS = Matcher(
    load_rules(
        {
            "f.yaml": """domain: d
descriptors:
  - {key: plan, value: old*}
  - {key: "x-*-id", value: "a*"}
  - {key: "plan*", value: free}
  - {key: plan, value: "f*"}
  - {key: "pl*", value: exact}
  - {key: plan, value: exact}
  - key: "tenant*"
    descriptors: [{key: "in*"}, {key: inner, value: x}]
  - {key: tenant_a}
  - {key: z, value_range: {start: 1, end: 9}}
  - {key: "z*"}
  - {key: tenants, value: "a*"}
"""
        }
    )
)


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        # A key that only patterns know.
        ([("x-user-id", "abc")], 4),
        ([("x--id", "a")], 4),
        ([("x-user-id", "b")], None),
        ([("x-user", "abc")], None),
        ([("planet", "free")], 5),
        ([("planet", "full")], None),
        # A pattern for the key stands in the order of the file, before and after those that are for its values.
        ([("plan", "old-free")], 3),
        ([("plan", "free")], 5),
        ([("plan", "full")], 6),
        ([("plan", "exact")], 8),
        ([("plate", "exact")], 7),
        ([("tenants", "ab")], 9),
        ([("z", "7")], 12),
        ([("z", "10")], 13),
        ([("zz", "7")], 13),
        # It is one for KEY_VALUE, whose _ it may find in either.
        ([("plan_x", "free")], 5),
        ([("plan", "x_free")], 5),
        # Without a value it takes any, and before the bare key.
        ([("tenant", "")], 9),
        ([("tenant_b", "x")], 9),
        ([("tenant_a", "x")], 9),
        ([("tenan", "t")], None),
        # On each level.
        ([("tenant", "1"), ("inner", "x")], 10),
        ([("tenant", "1"), ("in", "y")], 10),
        ([("tenant", "1"), ("out", "y")], None),
    ],
)
def test_a_pattern_for_keys(entries: list[tuple[str, str]], line: int | None) -> None:
    match = KEY_PATTERNS.match("d", entries)
    assert (match and match.rule.place.line) == line


def test_another_domain_matches_nothing() -> None:
    assert MATCHER.match("e", [("a", "x")]) is None
    assert MATCHER.domain("e") is None


def test_what_each_domain_has_is_freed_after_all_rules() -> None:
    files = {f"{i}.yaml": f"domain: d{i}\nlabels: [path]\ndescriptors: [{{key: a}}, {{key: b}}]\n" for i in range(3)}
    matcher = Matcher(load_rules(files))
    first = next(iter(matcher.rules))
    of_domains = [part for each in matcher.rules.domains.values() for part in (each.files, each.labels, each.rules)]
    place = {id(part): at for at, part in enumerate(matcher.parts())}
    assert max(place[id(part)] for part in of_domains) < place[id(first)]
