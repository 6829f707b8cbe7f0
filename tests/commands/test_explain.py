"""`extauth explain`: which rule a descriptor hits, why, and what the request counts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from extauth.cli import app
from extauth.limiter.counter_names import KeyNamer

SHIPPED = Path(__file__).parents[2] / "envoy/descriptors"
RUN = CliRunner()
CONFIG = f"""domain: d
labels: [path]
descriptors:
  - {{key: k, value: a-secret-of-another, rate_limit: {{unit: minute, requests_per_unit: 1}}}}
  - {{key: k, value: mine, rate_limit: {{unit: minute, requests_per_unit: 2}}}}
  - {{key: k, values: [x, "y,z"], rate_limit: {{unit: minute, requests_per_unit: 3}}}}
  - {{key: k, value_sha256: {"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}, quota_mode: true,
     rate_limit: {{unit: minute, requests_per_unit: 4}}}}
  - {{key: k, value: "a*", share_threshold: true, rate_limit: {{unit: minute, requests_per_unit: 5}}}}
  - {{key: k, value_regex: "ab+", rate_limit: {{unit: minute, requests_per_unit: 6}}}}
  - {{key: k, value_range: {{start: 1, end: 5}}, rate_limit: {{unit: minute, requests_per_unit: 7}}}}
  - {{key: k, shadow_mode: true, rate_limits: [
       {{unit: hour, requests_per_unit: 8}}, {{unit: day, requests_per_unit: 9}}]}}
  - key: deep
    descriptors: [{{key: er, rate_limit: {{unlimited: true}}}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "f.yaml"
    file.write_text(CONFIG)
    return file


def explain(config: Path, *arguments: str) -> dict[str, Any]:
    result = RUN.invoke(app, ["explain", "--json", "--config", str(config), *arguments])
    told: dict[str, Any] = json.loads(result.stdout)
    return told | {"exit_code": result.exit_code}


@pytest.mark.parametrize(
    ("descriptor", "line", "why"),
    [
        ("k=mine", 5, "exactly this value"),
        ("k=x", 6, "one of its values"),
        (r"k=y\,z", 6, "one of its values"),
        ("k=foo", 7, "the value's SHA-256 is its value_sha256"),
        ("k=abb", 9, "the wildcard matches"),
        ("k=a*", 9, "the text of the wildcard itself, which counts as an exact value"),
        ("k=3", 11, "the number is in its range"),
        ("k=5", 12, "the bare key takes any value"),
        ("k=", 12, "the bare key takes any value"),
        ("k=b=c", 12, "the bare key takes any value"),
    ],
)
def test_what_is_hit_and_why(config: Path, descriptor: str, line: int, why: str) -> None:
    told = explain(config, "d", descriptor)
    (step,) = told["descriptors"][0]["steps"]
    assert (step["hits"], step["why"]) == (f"{config}:{line}", why)
    assert told["descriptors"][0]["rule"] == f"{config}:{line}"
    assert told["descriptors"][0]["descriptor"] == descriptor
    assert told["exit_code"] == 0


def test_the_others_and_why_not(config: Path) -> None:
    (told,) = explain(config, "d", "k=abb")["descriptors"]
    others = {int(other["rule"].rpartition(":")[2]): other["why"] for other in told["steps"][0]["others"]}
    assert others == {
        10: "matches, too, but an earlier pattern wins",
        12: "matches, too, but the bare key is asked last",
        6: "the value is not among its values",
        7: "the value's SHA-256 differs",
        11: "the value is no number in its range",
    }
    assert told["steps"][0]["more"] == 2
    (exact,) = explain(config, "d", "k=mine")["descriptors"]
    assert exact["steps"][0]["others"][0] == {"rule": f"{config}:12", "why": "matches, too, but an exact value wins"}
    (digest,) = explain(config, "d", "k=foo")["descriptors"]
    assert digest["steps"][0]["others"][0]["why"] == "matches, too, but a digest wins"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["e", "k=1"], "no config file defines domain 'e'; the domains are 'd'"),
        (["d", "q=1"], "no rule here has the key 'q'; the keys are 'k', 'deep'"),
        (["d", "k=mine,z=1"], "no rule is as deep as this: {config}:5 has no descriptors under it"),
        (["d", "deep=1,else=1"], "no rule here has the key 'else'; the keys are 'er'"),
        (["d", "deep=1"], "the rule has no limit; it is for descriptors with more entries"),
        (["d", "path=/x"], "one of `labels`: it limits nothing, and the metrics show its value as path"),
    ],
)
def test_why_nothing_limits(config: Path, arguments: list[str], why: str) -> None:
    result = RUN.invoke(app, ["explain", "--config", str(config), *arguments])
    assert result.exit_code == 1
    assert why.format(config=config) in result.stdout
    assert "counts nothing, and is admitted" in result.stdout
    assert explain(config, *arguments)["counters"] == []


def test_values_of_others_are_masked(config: Path) -> None:
    config.write_text("domain: d\ndescriptors: [{key: token, value: a-secret-of-another}, {key: token, value: mine}]\n")
    result = RUN.invoke(app, ["explain", "--config", str(config), "d", "token=mine", "token=zzz"])
    assert len(re.findall(r"\(token=a-\*\*\*~[0-9a-f]{6}\): the value differs", result.stdout)) == 2
    assert "a-secret-of-another" not in result.stdout
    typed = RUN.invoke(app, ["explain", "--config", str(config), "d", "token=a-secret-of-another"])
    assert f"token=a-secret-of-another hits {config}:2: exactly this value" in typed.stdout


@pytest.mark.parametrize(("secret", "shown"), [("[k]", True), ("[token, 'auth*', 'x*']", False)])
def test_a_value_of_another_that_equals_its_key_is_masked_only_where_the_file_lists_the_key(
    config: Path, secret: str, shown: bool
) -> None:
    rules = "[{key: token, value: token}, {key: 'auth*', value: 'auth*'}, {key: 'x*'}]"
    config.write_text(f"domain: d\nsecret: {secret}\ndescriptors: {rules}\n")
    result = RUN.invoke(app, ["explain", "--config", str(config), "d", "token=zzz"])
    for words in ("(token=token)", "(auth*, the wildcard auth*_auth*)", "(x*, the wildcard x*)"):
        assert (words in result.stdout) is shown
    assert result.stdout.count("***~") == (0 if shown else 3)


@pytest.mark.parametrize(
    ("value", "hit", "others"),
    [
        (
            "10.1.2.3",
            "5: the address is in its network, and in no longer one",
            [
                "4 (ip, one of 2 networks): matches, too, but a longer prefix wins",
                "3 (ip, the wildcard 10*): matches, too, but a network wins",
                "6 (ip, any value): matches, too, but the bare key is asked last",
            ],
        ),
        (
            "11.1.2.3",
            "6: the bare key takes any value",
            ["5 (ip, the network 10.1.0.0/16): the value is no address in"],
        ),
    ],
)
def test_networks_are_explained(config: Path, value: str, hit: str, others: list[str]) -> None:
    config.write_text(
        "domain: d\ndescriptors:\n"
        "- {key: ip, value: '10*'}\n"
        "- {key: ip, value_cidr: [10.0.0.0/8, '2001:db8::/32']}\n"
        "- {key: ip, value_cidr: [10.1.0.0/16]}\n"
        "- {key: ip}\n"
    )
    told = RUN.invoke(app, ["explain", "--config", str(config), "d", f"ip={value}"]).stdout
    assert f"ip={value} hits {config}:{hit}\n" in told
    for other in others:
        assert f"{config}:{other}" in told


def test_counters_are_named_as_the_service_names_them(config: Path) -> None:
    environ = {"EXTAUTH_KEY_PREFIX": "mine", "EXTAUTH_KEY_SECRET": "hush"}
    result = RUN.invoke(app, ["explain", "--json", "--config", str(config), "d", "k=5", "k=a1"], env=environ)
    told = json.loads(result.stdout)
    namer = KeyNamer("mine", "hush")
    names = [
        namer("d", [("k", "5")], (), "3600"),
        namer("d", [("k", "5")], (), "86400"),
        namer("d", [("k", "")], ["a*"]),
    ]
    assert [counter["name"] for counter in told["counters"]] == [name.decode() for name in names]
    assert [counter["mode"] for counter in told["counters"]] == ["shadow", "shadow", "enforced"]
    text = RUN.invoke(app, ["explain", "--config", str(config), "d", "k=5", "k=a1", "k=foo"]).stdout
    assert "shadow mode: it is counted, and never denies" in text
    assert "share_threshold: all values that match the wildcard share the counter" in text
    assert "a quota: it denies only where every quota of the request is used up" in text


def test_what_replaces_what_and_the_request_as_a_whole() -> None:
    result = RUN.invoke(
        app,
        ["explain", "--config", str(SHIPPED), "api", "api_key=free-tier-key", "masked_remote_address=::/64", "path=/x"],
    )
    assert result.exit_code == 0
    for line in (
        "  10 per minute, gcra, burst 10; a denied request consumes nothing (tier free)",
        "    replaces limits named 'anonymous'",
        "    does not apply: 'free' of descriptor 1 replaces 'anonymous'",
        "the request: in the metrics, tier free and path /x",
    ):
        assert line in result.stdout.splitlines()
    told = explain(SHIPPED, "api", "api_key=free-tier-key", "masked_remote_address=::/64", "path=/x")
    assert [each["outcome"] for each in told["descriptors"]] == ["limited", "replaced", "label"]
    assert told["labels"] == {"path": "/x", "tier": "free"}
    assert [counter["cost"] for counter in told["counters"]] == [1]


def test_one_counter_twice_costs_two(config: Path) -> None:
    told = explain(config, "d", "k=mine", "k=mine")
    assert [counter["cost"] for counter in told["counters"]] == [2]


def test_unlimited(config: Path) -> None:
    told = explain(config, "d", "deep=1,er=2")
    assert (told["exit_code"], told["descriptors"][0]["outcome"], told["counters"]) == (0, "unlimited", [])


def test_the_switches_of_the_service_count(config: Path) -> None:
    arguments = ["explain", "--json", "--config", str(config), "d", "k=mine"]
    told = json.loads(RUN.invoke(app, arguments, env={"EXTAUTH_SHADOW_MODE": "true"}).stdout)
    assert told["counters"][0]["mode"] == "report_only"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["d", "k"], "'k' is no descriptor: 'k' is no entry; write KEY=VALUE"),
        (["d", "k=1,=2"], "'=2' is no entry"),
        (["", "k=1"], "the domain must not be empty"),
    ],
)
def test_what_is_no_request(config: Path, arguments: list[str], message: str) -> None:
    result = RUN.invoke(app, ["explain", "--config", str(config), *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("argument", "entries"),
    [
        (r"k=a\,b", [("k", "a,b")]),
        (r"k=a\\,b=c", [("k", "a\\"), ("b", "c")]),
        (r"k=\d+\\", [("k", "\\d+\\")]),
        ("k=a=b,l=", [("k", "a=b"), ("l", "")]),
    ],
)
def test_how_a_descriptor_is_written(config: Path, argument: str, entries: list[tuple[str, str]]) -> None:
    config.write_text("domain: d\ndescriptors: [{key: k, descriptors: [{key: b}, {key: l}]}]\n")
    steps = explain(config, "d", argument)["descriptors"][0]["steps"]
    assert [(step["key"], step["value"]) for step in steps] == entries


def test_a_config_with_problems(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("domain: d\ndescriptors: [{kee: k}]\n")
    result = RUN.invoke(app, ["explain", "--config", str(tmp_path), "d", "k=1"])
    assert result.exit_code == 2
    assert f"{tmp_path}/f.yaml:2:16: unknown key 'kee'" in result.stderr


def test_what_a_terminal_would_obey_is_shown_as_text(config: Path) -> None:
    result = RUN.invoke(app, ["explain", "--config", str(config), "d", "k=\x1b[2J"])
    assert "\x1b" not in result.stdout
    assert "k=\\x1b[2J" in result.stdout
