"""What the commands say of any config holds: an expansion means the same, and explanations agree with the planner."""

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.cli import app
from extauth.config.merge import load_rules
from extauth.config.reference_yaml import expand
from extauth.errors import ConfigError
from extauth.explain.request import read_descriptor, write_descriptor
from extauth.rls.request import Descriptor, Entry
from extauth.rules.matcher import Match, Matcher
from extauth.rules.model import RuleSet

KEYS = ["a", "b"]
VALUES = ["", "x", "x,y", "1", "2.5", "yes", "~", "'q'", '"', "\\", "ü\u2028", "# no", " ", "x*"]
NAMES = ["", "n", "m"]

plain_limits = st.one_of(
    st.fixed_dictionaries(
        {"unit": st.sampled_from(["second", "minute", "hour", "day"]), "requests_per_unit": st.integers(0, 9)},
        optional={
            "name": st.sampled_from(NAMES),
            "unit_multiplier": st.sampled_from([1, 7, 24, 60]),
            "replaces": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["o", "p"])}), max_size=1),
        },
    ),
    st.just({"unlimited": True}),
)
any_limits = st.one_of(
    plain_limits,
    st.fixed_dictionaries(
        {
            "unit": st.just("day"),
            "requests_per_unit": st.integers(0, 9),
            "algorithm": st.sampled_from(["gcra", "sliding_window"]),
            "name": st.sampled_from(["o", "p"]),
        }
    ),
)


def rules(
    limits: st.SearchStrategy[dict[str, Any]], *more_matchers: dict[str, Any], depth: int = 2
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of descriptors, whose values may also be matched by `more_matchers`."""
    matchers: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}),
        st.fixed_dictionaries({"value": st.sampled_from(VALUES)}),
        st.fixed_dictionaries({"values": st.lists(st.sampled_from(VALUES[1:]), min_size=1, max_size=3, unique=True)}),
        *map(st.just, more_matchers),
    )
    rest = {"rate_limit": limits, "shadow_mode": st.booleans(), "quota_mode": st.booleans()}
    if depth:
        rest["descriptors"] = rules(limits, *more_matchers, depth=depth - 1)
    rule = st.builds(
        lambda key, matcher, rest: {"key": key, **matcher, **rest},
        st.sampled_from(KEYS),
        matchers,
        st.fixed_dictionaries({}, optional=rest),
    )
    return st.lists(rule, max_size=4, unique_by=lambda rule: (rule["key"], rule.get("value")))


def loaded(descriptors: list[dict[str, Any]]) -> RuleSet | None:
    """The rules of one file; None where they are none."""
    text = json.dumps({"domain": "d", "labels": ["path"], "descriptors": descriptors})
    try:
        return load_rules({"f.yaml": text})
    except ConfigError:
        return None


def meaning(match: Match | None) -> object:
    if match is None:
        return None
    rule = match.rule
    limits = [
        (limit.requests_per_unit, limit.period_us, limit.name, limit.replaces, limit.unlimited) for limit in rule.limits
    ]
    return limits, rule.shadow_mode, rule.quota_mode, match.shared


@settings(deadline=None)  # the first command that runs imports what it needs
@given(rules(plain_limits))
def test_an_expansion_means_the_same(descriptors: list[dict[str, Any]]) -> None:
    ours = loaded(descriptors)
    if ours is None:
        return
    before = Matcher(ours)
    expansion = expand(ours)
    for text in expansion.documents.values():
        said = Matcher(load_rules({"f.yaml": text}))
        assert yaml.safe_load(text).keys() == {"domain", "descriptors"}
        entries = [Entry(key, value) for key in [*KEYS, "path"] for value in [*VALUES, "y", "xx"]]
        for depth in (1, 2):
            for asked in itertools.islice(itertools.product(entries, repeat=depth), 2_000):
                assert meaning(before.match("d", asked)) == meaning(said.match("d", asked))
    assert bool(expansion.documents) != bool(expansion.unsupported)


requests = st.lists(
    st.lists(st.builds(Entry, st.sampled_from([*KEYS, "path"]), st.sampled_from(VALUES)), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(rules(any_limits, {"value_range": {"start": 1, "end": 3}}, {"value_regex": "[xy,]+"}), requests)
def test_an_explanation_agrees_with_itself(descriptors: list[dict[str, Any]], request: list[list[Entry]]) -> None:
    """It names a rule of the file for each counter, and each counter for some descriptor."""
    if loaded(descriptors) is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f.yaml"
        file.write_text(json.dumps({"domain": "d", "labels": ["path"], "descriptors": descriptors}))
        arguments = [write_descriptor(Descriptor(tuple(entries))) for entries in request]
        result = CliRunner().invoke(app, ["explain", "--json", "--config", folder, "d", *arguments])
        text = CliRunner().invoke(app, ["explain", "--config", folder, "d", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert text.exit_code == result.exit_code
    told = json.loads(result.stdout)
    named = {limit["counter"] for each in told["descriptors"] for limit in each["limits"]} - {None}
    assert named == {counter["name"] for counter in told["counters"]}
    for each, entries in zip(told["descriptors"], request, strict=True):
        hits = [step["hits"] for step in each["steps"]]
        assert (each["rule"] is not None) == (len(hits) == len(entries) and None not in hits)
        assert (each["outcome"] == "limited") == any(limit["counter"] for limit in each["limits"])


@given(st.lists(st.tuples(st.text(min_size=1).filter(lambda t: not set(t) & set("=,\\")), st.text()), min_size=1))
def test_a_descriptor_is_read_as_it_is_written(entries: list[tuple[str, str]]) -> None:
    descriptor = Descriptor(tuple(Entry(key, value) for key, value in entries))
    assert read_descriptor(write_descriptor(descriptor)) == descriptor
