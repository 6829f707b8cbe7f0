"""`extauth validate --expand`: a config in the words of envoyproxy/ratelimit."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from extauth.cli import app
from extauth.config.merge import load_rules
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit, Rule

RUN = CliRunner()

PLAIN = r"""
domain: plain
labels: [path]
tiers:
  anon: {unit: minute, requests_per_unit: 1}
  free: {unit: minute, unit_multiplier: 60, requests_per_unit: 10, replaces: [{name: anon}]}
  staff: {unlimited: true, replaces: [{name: anon}]}
descriptors:
  - {key: k, values: [a, 1e3x, "1e3", "yes", "null", "0x1F", "x,y: z", "- q \"ü\" \\ #", " "], tier: free}
  - {key: k, value: me, tier: staff}
  - {key: k, value: "b*", rate_limit: {unit: SECOND, requests_per_unit: 3}, share_threshold: true}
  - {key: "w*", rate_limit: {unit: month, requests_per_unit: 3}, value_to_metric: true}
  - {key: k, quota_mode: true, detailed_metric: true, metadata: {a: [1, 2.5, x, null, yes]}, rate_limit:
     {unit: day, unit_multiplier: 7, requests_per_unit: 0}}
  - {key: ip, tier: anon, shadow_mode: true}
  - key: u
    descriptors:
      - {key: v, values: [1, 2], rate_limit: {unit: second, unit_multiplier: 60, requests_per_unit: 3, name: n}}
      - key: v
        descriptors: [{key: x, rate_limit: {unit: year, requests_per_unit: 1}}]
"""
ASKED = [
    *[[("k", value)] for value in ["a", "1e3x", "1e3", "yes", "null", "0x1F", "x,y: z", '- q "ü" \\ #', " ", "me"]],
    *[[("k", value)] for value in ["b", "b1", "b*", "", "z"]],
    [("path", "/")],
    [("wx", "1")],
    [("w", "")],
    [("ip", "1")],
    [("u", "1")],
    [("u", "1"), ("v", "1")],
    [("u", "1"), ("v", "2")],
    [("u", "1"), ("v", "3")],
    [("u", "1"), ("v", "3"), ("x", "")],
    [("u", "1"), ("v", "1"), ("x", "")],
]


def meaning(limit: Limit) -> tuple[object, ...]:
    """A limit, whatever words it was said in."""
    return (
        limit.requests_per_unit,
        limit.period_us,
        limit.algorithm,
        limit.count_denied,
        limit.name,
        limit.replaces,
        limit.unlimited,
        limit.on_store_failure,
    )


def outcome(rule: Rule) -> tuple[object, ...]:
    return (
        tuple(map(meaning, rule.limits)),
        rule.shadow_mode,
        rule.quota_mode,
        rule.detailed_metric,
        rule.value_to_metric,
        rule.metadata,
    )


def test_what_is_expanded_means_the_same(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(PLAIN)
    result = RUN.invoke(app, ["validate", "--expand", str(file)])
    assert result.exit_code == 0, result.stderr
    ours, plain = (Matcher(load_rules({"f.yaml": text})) for text in (PLAIN, result.stdout))
    assert not plain.rules.warnings
    for entries in ASKED:
        before, after = ours.match("plain", entries), plain.match("plain", entries)
        assert (before and outcome(before.rule)) == (after and outcome(after.rule)), entries
        assert (before and before.shared) == (after and after.shared), entries


def test_what_is_expanded_holds_the_references_keys_only(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(PLAIN)
    expanded = RUN.invoke(app, ["validate", "--expand", str(file)]).stdout
    document = yaml.safe_load(expanded)
    assert set(document) == {"domain", "descriptors"}
    for ours in ("values:", "tier", "unit_multiplier", "labels:", "algorithm", "count_denied", "week_"):
        assert ours not in "".join(line for line in expanded.splitlines() if not line.startswith("#"))
    assert document["descriptors"][0]["rate_limit"] == {
        "name": "free",
        "unit": "hour",
        "requests_per_unit": 10,
        "replaces": [{"name": "anon"}],
    }
    file.write_text(expanded)
    again = RUN.invoke(app, ["validate", "--expand", str(file)]).stdout
    assert yaml.safe_load(again) == document


LIMIT = "rate_limit: {unit: minute, requests_per_unit: 1"


@pytest.mark.parametrize(
    ("head", "descriptors", "line", "why"),
    [
        ("", f"  - {{key: k, {LIMIT}, algorithm: gcra}}}}", 3, "no gcra"),
        ("", f"  - {{key: k, {LIMIT}, algorithm: gcra, burst: 2}}}}", 3, "no burst"),
        ("", f"  - {{key: k, {LIMIT}, algorithm: sliding_window}}}}", 3, "no sliding_window"),
        ("", f"  - {{key: k, {LIMIT}, count_denied: false}}}}", 3, "counts denied hits"),
        ("", f"  - {{key: k, {LIMIT}, on_store_failure: allow}}}}", 3, "no on_store_failure"),
        ("", f"  - {{key: k, {LIMIT}, unit_multiplier: 15}}}}", 3, "no window of 15 minutes"),
        (
            "",
            "  - {key: k, rate_limits: [{unit: day, requests_per_unit: 2}, {unit: hour, requests_per_unit: 1}]}",
            3,
            "not 2",
        ),
        ("", f"  - {{key: k, value_sha256: {'a' * 64}, {LIMIT}}}}}", 3, "value_sha256"),
        ("", f"  - {{key: k, value_regex: a+, {LIMIT}}}}}", 3, "value_regex"),
        ("", f"  - {{key: k, value_range: {{start: 1, end: 2}}, {LIMIT}}}}}", 3, "value_range"),
        ("", f"  - {{key: k, value_cidr: [10.0.0.0/8], {LIMIT}}}}}", 3, "match a network (value_cidr)"),
        ("", f"  - {{key: k, values: ['a*'], {LIMIT}}}}}", 3, "for a wildcard"),
        ("", "  - {key: a, value: x}\n  - {key: a_x}", 4, "the same as line 3"),
        ("labels: [path]", f"  - {{key: 'p*', {LIMIT}}}}}", 4, "the label 'path', too"),
        ("algorithm: gcra", f"  - {{key: k, {LIMIT}, algorithm: fixed_window}}}}", 0, "that requests bring"),
        ("", f"  - key: a\n    descriptors:\n      - {{key: k, {LIMIT}, algorithm: gcra}}}}", 5, "no gcra"),
        ("together: true", "  - {key: k}", 0, "'d' has together, which the reference does not know"),
        ("on_store_failure: deny", "  - {key: k}", 0, "'d' has on_store_failure, which the reference does not know"),
    ],
)
def test_what_cannot_be_said(tmp_path: Path, head: str, descriptors: str, line: int, why: str) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "f.yaml").write_text("\n".join(filter(None, ["domain: d", head, "descriptors:", descriptors])))
    (folder / "other.yaml").write_text("domain: other\ndescriptors: [{key: k}]\n")
    result = RUN.invoke(app, ["validate", "--expand", str(folder)])
    assert result.exit_code == 1
    place = f"{folder}/f.yaml:{line}:" if line else f"{folder}/f.yaml: "
    assert any(told.startswith(place) and why in told for told in result.stderr.splitlines()), result.stderr
    assert yaml.safe_load(result.stdout) == {"domain": "other", "descriptors": [{"key": "k"}]}
    told = json.loads(RUN.invoke(app, ["validate", "--expand", "--json", str(folder)]).stdout)
    assert (len(told["documents"]), len(told["unsaid"])) == (1, 1)
    assert told["unsaid"][0]["line"] == line


def test_several_domains_are_several_documents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"domain: {name}\ndescriptors: [{{key: k}}]\n")
    result = RUN.invoke(app, ["validate", "--expand", str(tmp_path)])
    assert [document["domain"] for document in yaml.safe_load_all(result.stdout)] == ["a", "b"]
