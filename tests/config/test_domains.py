"""Several files: each domain by itself, merged where that is set, and kept where its files are broken."""

import pytest

from extauth.admin.rules_json import view_rules
from extauth.config.merge import load_rules, load_valid_domains
from extauth.errors import ConfigError, Diagnostic, Place
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.rules.model import RuleSet


def rules(domain: str, *keys: str, more: str = "") -> str:
    return f"domain: {domain}\n{more}descriptors: [{', '.join(f'{{key: {key}}}' for key in keys)}]\n"


OLD = load_rules({"a.yaml": rules("a", "old"), "b.yaml": rules("b", "old")})


def keys(ruleset: RuleSet) -> dict[str, list[str]]:
    return {name: [rule.key for rule in domain.rules] for name, domain in ruleset.domains.items()}


BROKEN = {
    "no YAML": "domain: [",
    "a mistake": rules("a", "new") + "descripters: []",
    "another domain, and a mistake": rules("other", "new") + "descripters: []",
    "nothing": "",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_keeps_its_domain_and_no_other(text: str) -> None:
    loaded = load_valid_domains({"a.yaml": text, "b.yaml": rules("b", "new")}, OLD)
    assert keys(loaded) == {"a": ["old"], "b": ["new"]}
    assert loaded.retained == {"a"}
    assert [problem.place.file for problem in loaded.problems] == ["a.yaml"]
    again = load_valid_domains({"a.yaml": text, "b.yaml": rules("b", "newer")}, loaded)
    assert keys(again) == {"a": ["old"], "b": ["newer"]}, "and goes on keeping it"
    mended = load_valid_domains({"a.yaml": rules("a", "new"), "b.yaml": rules("b", "newer")}, again)
    assert (keys(mended), mended.retained, mended.problems) == ({"b": ["newer"], "a": ["new"]}, frozenset(), ())


def test_a_file_that_cannot_be_read_keeps_its_domain() -> None:
    loaded = load_valid_domains(
        {"b.yaml": rules("b", "new")}, OLD, [Diagnostic.error(Place("a.yaml"), "cannot be read")]
    )
    assert (keys(loaded), loaded.retained) == ({"b": ["new"], "a": ["old"]}, frozenset("a"))


def test_a_domain_whose_file_is_gone_is_gone() -> None:
    assert keys(load_valid_domains({"b.yaml": rules("b", "new")}, OLD)) == {"b": ["new"]}


def test_what_never_loaded_is_left_out() -> None:
    loaded = load_valid_domains({"b.yaml": rules("b", "new"), "c.yaml": "domain: ["}, OLD)
    assert keys(loaded) == {"b": ["new"]}


def test_a_domain_in_two_files_keeps_what_it_had() -> None:
    texts = {"a.yaml": rules("a", "new"), "b.yaml": rules("b", "new"), "c.yaml": rules("a", "more")}
    loaded = load_valid_domains(texts, OLD)
    assert (keys(loaded), loaded.retained) == ({"b": ["new"], "a": ["old"]}, frozenset("a"))
    assert list(map(str, loaded.problems)) == [
        "c.yaml:1:9: domain 'a' is already defined in a.yaml; merge the two files, or set EXTAUTH_MERGE_DOMAINS=true"
    ]


TIERS = "tiers: {free: {unit: day, requests_per_unit: %d}}\n"


def test_what_one_file_calls_secret_is_so_in_all_files_of_a_domain() -> None:
    texts = {
        "a.yaml": "domain: d\ndescriptors: [{key: tenant, value: free-of-charge}, {key: other, value: in-clear-text}]",
        "b.yaml": "domain: d\nsecret: [tenant, k]",
    }
    rules = load_rules(texts, merge=True)
    view = "".join(view_rules(rules, Masking()))
    assert "free-of-charge" not in view
    assert "in-clear-text" in view
    entries = (("tenant", "free-of-charge"),)
    matcher = Matcher(rules)
    match = matcher.match("d", entries)
    assert match is not None
    assert matcher.name(match, "d", entries).name.startswith("tenant_fr***~")
    assert rules.domains["d"].secret.keys == {"tenant", "k"}


def test_files_of_one_domain_are_merged_where_that_is_set() -> None:
    texts = {"1.yaml": rules("d", "a", more=TIERS % 1), "2.yaml": rules("d", "b", more=TIERS % 1 + "labels: [path]\n")}
    domain = load_rules(texts, merge=True).domains["d"]
    assert [rule.key for rule in domain.rules] == ["a", "b"]
    assert ([tier.name for tier in domain.tiers], domain.labels) == (["free"], ("path",))
    assert domain.files == ("1.yaml", "2.yaml")


@pytest.mark.parametrize("text", ["domain: [", "domain: d\n\ttab", "domain: d\ndescripters: []"])
def test_a_merged_domain_is_kept_whole_where_one_of_its_files_is_broken(text: str) -> None:
    old = load_rules({"a.yaml": rules("d", "a"), "b.yaml": rules("d", "b")}, merge=True)
    loaded = load_valid_domains({"a.yaml": rules("d", "new"), "b.yaml": text}, old, merge=True)
    assert (keys(loaded), loaded.retained) == ({"d": ["a", "b"]}, frozenset("d"))
    unread = [Diagnostic.error(Place("b.yaml"), "cannot be read")]
    loaded = load_valid_domains({"a.yaml": rules("d", "new")}, old, unread, merge=True)
    assert (keys(loaded), loaded.retained) == ({"d": ["a", "b"]}, frozenset("d"))


CLASHES = {
    "a descriptor twice": (
        rules("d", "a"),
        rules("d", "b", "a"),
        "2.yaml:2:25: the same descriptor is already defined in 1.yaml; keep one of the two",
    ),
    "two tiers of one name": (
        rules("d", more=TIERS % 1),
        rules("d", more=TIERS % 2),
        "2.yaml:1:9: the tier 'free' differs from the one in 1.yaml; make them the same, or rename one",
    ),
    "two tiers of one name, of which the first file has none": (
        rules("d", "a"),
        rules("d", more=TIERS % 1),
        "3.yaml:1:9: the tier 'free' differs from the one in 2.yaml; make them the same, or rename one",
    ),
    "a rule for another file's label": (
        rules("d", "path"),
        rules("d", more="labels: [path]\n"),
        "1.yaml:2:15: 'path' is one of `labels`, so no rule of its own can apply; remove the rule, or the label",
    ),
}


@pytest.mark.parametrize(("first", "second", "said"), CLASHES.values(), ids=CLASHES)
def test_files_that_do_not_merge(first: str, second: str, said: str) -> None:
    third = {"3.yaml": rules("d", more=TIERS % 2)} if "3.yaml" in said else {}
    with pytest.raises(ConfigError) as raised:
        load_rules({"1.yaml": first, "2.yaml": second, **third}, merge=True)
    assert str(raised.value) == said


def test_what_replaces_a_limit_of_another_file_replaces_something() -> None:
    replacing = "{unit: day, requests_per_unit: 1, replaces: [{name: other}]}"
    named = "{unit: day, requests_per_unit: 1, name: other}"
    texts = {
        "1.yaml": f"domain: d\ndescriptors: [{{key: a, rate_limit: {replacing}}}]",
        "2.yaml": f"domain: d\ndescriptors: [{{key: b, rate_limit: {named}}}]",
    }
    assert load_rules(texts, merge=True).warnings == ()
