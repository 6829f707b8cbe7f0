"""What CI installs, it installs in the same versions each time."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/transport/clients"


def test_go_programs_have_a_version_and_a_hash() -> None:
    run = (ROOT / ".ci/run").read_text()
    installed = dict(re.findall(r"^ *install_tools (\S+) (.+)$", run, re.MULTILINE))
    assert [program.rpartition("/")[2] for programs in installed.values() for program in programs.split()] == [
        "h2spec",
        "ghz",
        "grpcurl",
        "helm",
    ]
    for folder, programs in installed.items():
        tools = ROOT / folder
        required = dict(re.findall(r"^\t(\S+) (v\S+)", (tools / "go.mod").read_text(), re.MULTILINE))
        hashes = (tools / "go.sum").read_text()
        for program in programs.split():
            module = program.partition("/cmd/")[0]
            assert f"{module} {required[module]} h1:" in hashes
            assert f'"{program}"' in (tools / "tools.go").read_text()
    assert "@" not in "".join(line for line in run.splitlines() if "go install" in line)


def test_packages_of_the_javascript_client_are_locked_by_hash_and_name_no_index() -> None:
    lock = json.loads((CLIENTS / "js/package-lock.json").read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
    assert lock["packages"][""]["dependencies"] == json.loads((CLIENTS / "js/package.json").read_text())["dependencies"]


def test_what_maven_uses_for_the_java_client_has_a_version() -> None:
    pom = (CLIENTS / "java/pom.xml").read_text()
    versions = re.findall(r"<version>([^<]*)</version>", pom)
    assert len(versions) == pom.count("<artifactId>")
    assert all(re.fullmatch(r"\d+(\.\d+)*", version) for version in versions)
