"""Large configs, which are read in a process of their own."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from extauth.config.merge import load_rules
from extauth.config.parse import MAX_FILE_RULES, parse_file
from extauth.config.sources.files import APART_BYTES, FileSource, read_valid_domains
from extauth.config.sources.packed import pack, unpack
from extauth.config.sources.reader import read_apart
from extauth.errors import ConfigError
from extauth.rules.model import RuleSet

ALL_KEYS = """
domain: api
algorithm: gcra
count_denied: true
on_store_failure: deny
labels: [path]
secret: [who]
together: true
tiers:
  free: {unit: minute, requests_per_unit: 10, replaces: [{name: gone}]}
  open: {unlimited: true}
descriptors:
  - {key: api_key, value: a, tier: free}
  - {key: api_key, value: b, tier: free, shadow_mode: true, metadata: {a: [1, 2.5, null, true, {b: ä}]}}
  - {key: api_key, value: c, tier: open}
  - {key: api_key, values: [d, e], rate_limit: {unit: hour, requests_per_unit: 0}}
  - {key: number, value_range: {start: -5, end: 9}, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: net, value_cidr: [10.0.0.0/8, "2001:db8::/32"], rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: re, value_regex: "a+", detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 3, burst: 7}}
  - {key: w, value: "a*", share_threshold: true, value_to_metric: true, rate_limit: {unit: week, requests_per_unit: 3}}
  - key: deep
    descriptors:
      - key: deeper
        rate_limits:
          - {unit: minute, requests_per_unit: 3, unit_multiplier: 15, algorithm: sliding_window, name: x}
          - {unit: year, requests_per_unit: 4294967295, on_store_failure: error, count_denied: false}
"""
DIGEST = "a" * 64


def test_what_is_unpacked_is_what_was_packed() -> None:
    texts = {
        "a.yaml": ALL_KEYS,
        "b.yaml": f"domain: b\ndescriptors: [{{key: k, value_sha256: {DIGEST}}}]",
        "c.yaml": "domain: c",
    }
    rules = load_rules(texts)
    assert rules.warnings
    again = unpack(pack(rules), {})
    assert again == rules
    assert again.digest == rules.digest
    assert list(again) == list(rules)


def test_packed_whole_nothing_of_what_is_retained_is_missing() -> None:
    old = load_rules({"a.yaml": ALL_KEYS, "c.yaml": "domain: c"})
    rules = replace(old, retained=frozenset({"api"}), problems=old.warnings[:1])
    again = unpack(pack(rules, whole=True), {})
    assert again == rules
    assert (again.digest, again.retained) == (rules.digest, frozenset({"api"}))
    assert unpack(pack(rules), old.domains) == rules


def test_many_rules_are_packed_in_pieces_and_share_what_is_equal() -> None:
    lines = "".join(
        f"  - {{key: k, value: v{i}, rate_limit: {{unit: day, requests_per_unit: 5}}}}\n" for i in range(1000)
    )
    rules = load_rules({"a.yaml": f"domain: a\ndescriptors:\n{lines}"})
    pieces = list(pack(rules))
    assert max(map(len, pieces)) < 20_000
    again = unpack(pieces, {})
    assert again == rules
    assert len({id(rule.limits) for rule in again}) == 1
    with pytest.raises(EOFError):
        unpack(pieces[:-1], {})


@pytest.mark.parametrize("merge", [False, True])
def test_another_process_reads_as_this_one_does(tmp_path: Path, merge: bool) -> None:
    (tmp_path / "a.yaml").write_text(ALL_KEYS)
    (tmp_path / "b.yaml").write_text("domain: b\ndescriptors: [{key: k}]")
    old = read_apart(tmp_path, RuleSet(), merge=merge)
    assert old == read_valid_domains(tmp_path, RuleSet(), merge=merge)
    (tmp_path / "b.yaml").write_text("domain: b\ndescriptors: [{kex: k}]")
    (tmp_path / "c.yaml").write_text("domain: api\ndescriptors: [{key: c}]")
    new = read_apart(tmp_path, old, merge=merge)
    assert new == read_valid_domains(tmp_path, old, merge=merge)
    assert new.problems
    assert new.domains["b"] is old.domains["b"]


def test_without_any_rules_the_reasons_are_raised(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.yaml file here"):
        read_apart(tmp_path, RuleSet(), merge=False)


def test_a_reader_that_is_killed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(ALL_KEYS)
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(killed))
    with pytest.raises(ConfigError, match="ended early, killed by signal 9; give the service more memory"):
        read_apart(tmp_path, RuleSet(), merge=False)


async def test_large_files_are_read_where_no_process_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: Callable[[int], str]
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    text = many(20_000)
    assert len(text) > APART_BYTES
    (tmp_path / "a.yaml").write_text(text)
    source = FileSource(tmp_path)
    assert len(await asyncio.to_thread(source.read)) == 20_000


@pytest.fixture
def many() -> Callable[[int], str]:
    """A file of so many rules."""

    def text(rules: int) -> str:
        lines = "".join(f"  - {{key: api_key, value: key-{i:08d}-abcdef, tier: free}}\n" for i in range(rules))
        return f"domain: a\ntiers: {{free: {{unit: day, requests_per_unit: 5}}}}\ndescriptors:\n{lines}"

    return text


def test_a_file_of_too_many_rules_is_refused_before_it_is_parsed() -> None:
    text = "domain: [\ndescriptors:\n" + "- {key: k}\n" * (MAX_FILE_RULES + 1)  # what follows [ is no YAML
    problems = parse_file("a.yaml", text).problems
    (problem,) = problems
    assert str(problem.place) == f"a.yaml:{MAX_FILE_RULES + 3}:1"
    assert problem.message == f"the file holds more than {MAX_FILE_RULES} descriptors"
    assert "EXTAUTH_MERGE_DOMAINS" in problem.hint
