"""The conformance suite's rules, table and report; what the cases do is for tests/integration."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from extauth.config.merge import load_rules
from extauth.config.schema import REFERENCE_KEYS
from extauth.conformance import report
from extauth.conformance.case import Case, Mark, Outcome, Result, compare, compare_either, not_applicable
from extauth.conformance.cases import CASES
from extauth.conformance.rules import EXTAUTH_DOMAIN, REFERENCE_DOMAIN, Folder, standing_probe, text_of
from extauth.conformance.server import Server
from extauth.errors import ConformanceError

ROOT = Path(__file__).parents[2]


def keys(node: object) -> set[str]:
    if isinstance(node, dict):
        return set(node).union(*map(keys, node.values()))
    return set().union(*map(keys, node)) if isinstance(node, list) else set()


def test_the_rules_load_without_a_warning() -> None:
    texts = {f"{domain}.yaml": text_of(domain) for domain in (REFERENCE_DOMAIN, EXTAUTH_DOMAIN)}
    rules = load_rules(texts)
    assert (set(rules.domains), rules.warnings) == ({REFERENCE_DOMAIN, EXTAUTH_DOMAIN}, ())


def test_the_reference_can_load_its_file() -> None:
    rules = yaml.safe_load(text_of(REFERENCE_DOMAIN))
    assert keys(rules) <= REFERENCE_KEYS
    joined = [(rule["key"], rule.get("value")) for rule in rules["descriptors"]]
    assert len({"_".join(filter(None, rule)) for rule in joined}) == len(joined), "it would call two of them one"


def test_other_rules_have_another_probe() -> None:
    assert standing_probe(REFERENCE_DOMAIN) != standing_probe(EXTAUTH_DOMAIN)
    assert standing_probe(REFERENCE_DOMAIN) in text_of(REFERENCE_DOMAIN)


def test_cases_have_names_of_their_own_and_say_what_they_check() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in CASES if not case.about.endswith(".") or not case.where] == []


@pytest.mark.parametrize("where", sorted({case.where for case in CASES if case.where.startswith("docs/")}))
def test_pages_that_cases_name_have_that_heading(where: str) -> None:
    page, _, anchor = where.partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_a_folder_takes_back_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("domain: other")
    folder = Folder(tmp_path)
    folder.write(REFERENCE_DOMAIN, text_of(REFERENCE_DOMAIN))
    folder.write(EXTAUTH_DOMAIN, text_of(EXTAUTH_DOMAIN))
    assert {path.name for path in tmp_path.iterdir()} == {"other.yaml", "conformance.yaml", "conformance-extauth.yaml"}
    Folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.yaml"], "as after a run that was killed"


def test_a_file_of_somebody_else_is_in_the_way(tmp_path: Path) -> None:
    theirs = tmp_path / "conformance.yaml"
    theirs.write_text("domain: conformance")
    with pytest.raises(ConformanceError, match="is in the way"):
        Folder(tmp_path)
    assert theirs.read_text() == "domain: conformance"
    with pytest.raises(ConformanceError, match="is no folder"):
        Folder(theirs)


def test_comparisons() -> None:
    assert compare([1], [1]).outcome is Outcome.PASSED
    assert compare({"a": 1, "b": 2}, {"a": 1, "b": 3}) == Result(Outcome.FAILED, "{'b': 2}", "{'b': 3}")
    assert [compare_either(1, 2, seen).outcome for seen in (1, 2, 3)] == ["passed", "not applicable", "failed"]


async def check(_server: Server) -> Result:
    return compare(1, 1)


def test_a_report_says_why_a_case_did_not_pass() -> None:
    case = Case("a_case", "It does so.", "a.proto", check, Mark.DEVIATION)
    results = [(case, compare(1, 2)), (case, not_applicable("it does otherwise")), (case, compare(1, 1))]
    assert [report.line(*result).splitlines() for result in results] == [
        [
            "failed          a_case [deviation]",
            "                It does so.",
            "                specified: a.proto",
            "                expected:  1",
            "                seen:      2",
        ],
        ["not applicable  a_case [deviation]: it does otherwise"],
        ["passed          a_case [deviation]"],
    ]
    assert report.totals(results) == "1 passed, 1 failed, 1 not applicable"
    told = json.loads(report.as_json("unix:s", results))
    assert {key: told[key] for key in ("address", "passed", "failed", "not_applicable")} == {
        "address": "unix:s",
        "passed": 1,
        "failed": 1,
        "not_applicable": 1,
    }
    assert (told["cases"][0]["expected"], told["cases"][1]["reason"]) == ("1", "it does otherwise")


def test_without_its_messages_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['envoy_data_plane'] = None; from extauth.cli import main; main()"
    argv = [sys.executable, "-c", code, "conformance"]
    ran = subprocess.run([*argv, "--address", "127.0.0.1:1"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install 'extauth[conformance]'" in ran.stderr
    rules = subprocess.run([*argv, "--print-rules"], capture_output=True, text=True, check=False)
    assert (rules.returncode, rules.stderr) == (0, "")
