"""Only an algorithm's own object knows how it counts: nobody else asks which algorithm a limit has."""

import ast
from pathlib import Path

import pytest

from extauth.rules.model import Algorithm

ROOT = Path(__file__).parents[2]
KNOW = ("extauth/limiter/algorithms/", "extauth/rules/", "extauth/config/")
OTHERS = [
    path
    for path in sorted(ROOT.glob("extauth/**/*.py"))
    if not path.relative_to(ROOT).as_posix().startswith(KNOW) and "conformance" not in path.parts
]
NAMES = {"Algorithm", "Gcra", "FixedWindow", "SlidingWindow", "Backlog", "WindowUsage", "LogUsage", "Window", "Log"}


def questions(text: str) -> list[str]:
    """Every place in a source that asks which algorithm it has to do with."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(ast.Name("Algorithm"), name) if name in Algorithm.__members__:
                found.append(ast.unparse(node))
            case ast.Call(ast.Name("isinstance" | "issubclass"), [_, kinds]) if NAMES & _names(kinds):
                found.append(ast.unparse(node))
            case ast.Compare(left, _, others) if NAMES & set().union(*map(_names, (left, *others))):
                found.append(ast.unparse(node))
            case ast.MatchClass(kind) if NAMES & _names(kind):
                found.append(ast.unparse(kind))
    return found


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def test_nobody_else_asks_which_algorithm_a_limit_has() -> None:
    found = {path.relative_to(ROOT).as_posix(): questions(path.read_text(encoding="utf-8")) for path in OTHERS}
    assert len(found) > 200
    assert {path: asking for path, asking in found.items() if asking} == {}


@pytest.mark.parametrize(
    "asking",
    [
        "if limit.algorithm is Algorithm.GCRA: ...",
        "if type(algorithm) == Gcra: ...",
        "found = isinstance(level, (Backlog, WindowUsage))",
        "table = {Algorithm.SLIDING_WINDOW: 1}",
        "match level:\n    case LogUsage(): ...",
    ],
)
def test_a_question_is_found(asking: str) -> None:
    assert questions(asking) != []
