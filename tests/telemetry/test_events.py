"""What is logged of rules, which is little however many there are."""

from structlog.testing import capture_logs

from extauth.errors import ConfigError, Diagnostic, Place
from extauth.rules.model import Domain, RuleSet
from extauth.telemetry import events
from extauth.telemetry.events import MOST_CHARS, MOST_LINES, MOST_NAMED

MANY = MOST_NAMED + 7


def rules(prefix: str) -> RuleSet:
    return RuleSet({name: Domain(name) for name in (f"{prefix}{n:03}" for n in range(MANY))})


def test_of_many_domains_a_line_names_some() -> None:
    with capture_logs() as lines:
        events.rules_reloaded(rules("new"), 0, rules("old"))
    assert [line["event"] for line in lines] == ["domains_gone", "config_reloaded"]
    for line, prefix in zip(lines, ("old", "new"), strict=True):
        assert line["domains"] == [*(f"{prefix}{n:03}" for n in range(MOST_NAMED)), "and 7 more"]


def test_a_few_names_are_all_there_and_long_ones_are_cut() -> None:
    assert events.some_names(["a", "b" * 1000]) == ["a", "b" * MOST_CHARS + "…"]


def test_of_many_problems_and_warnings_some_are_lines() -> None:
    problems = tuple(Diagnostic.error(Place(f"f{n:03}"), "wrong") for n in range(MOST_LINES + 7))
    warnings = tuple(Diagnostic.warning(Place("w"), "odd") for _ in range(MOST_LINES + 7))
    with capture_logs() as lines:
        events.rules_read(RuleSet(problems=problems, warnings=warnings))
        events.reload_failed(ConfigError(problems))
    assert [line["event"] for line in lines] == [
        event for event in ("config_rejected", "config_warning", "config_rejected") for _ in range(MOST_LINES + 1)
    ]
    assert [line["problem"] for line in lines[: MOST_LINES + 1]] == [*map(str, problems[:MOST_LINES]), "and 7 more"]
