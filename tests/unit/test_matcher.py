"""Which rule a descriptor hits."""

import pytest

from extauth.rules.load import load_rules
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
    assert (match and match.rule.line) == line


def test_another_domain_matches_nothing() -> None:
    assert MATCHER.match("e", [("a", "x")]) is None
    assert MATCHER.domain("e") is None
