"""`extauth validate` of files and folders."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth.cli import app

ROOT = Path(__file__).parents[2]
RUN = CliRunner()


def test_clean_files_are_counted() -> None:
    result = RUN.invoke(
        app, ["validate", str(ROOT / "envoy/descriptors"), str(ROOT / "examples/usage/descriptors.yaml")]
    )
    assert (result.exit_code, result.stdout) == (0, "2 files, 2 domains, 4 rules: no problems\n")


def test_every_problem_and_warning_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\ndescriptors:\n  - {key: k, tier: free}\n  - {kee: l}\n")
    (tmp_path / "b.yaml").write_text("domain: b\nshadow_mode: true\n")
    result = RUN.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    ignored = "'shadow_mode' has no effect here (envoyproxy/ratelimit ignores it too); it belongs to a descriptor"
    assert result.stdout.splitlines() == [
        f"{tmp_path}/a.yaml:3:20: unknown tier; no tier is defined",
        f"{tmp_path}/a.yaml:4:6: unknown key 'kee'; did you mean 'key'?",
        f"{tmp_path}/b.yaml:2:1: warning: {ignored}",
        "2 problems",
    ]


@pytest.mark.parametrize("mistake", sorted((ROOT / "tests/config/invalid").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_says_what_the_service_says(mistake: Path) -> None:
    result = RUN.invoke(app, ["validate", str(mistake)])
    expected = mistake.with_suffix(".txt").read_text().splitlines()
    *told, _total = result.stdout.replace(f"{mistake.parent}/", "").splitlines()
    assert [line for line in told if ": warning: " not in line] == expected
    assert result.exit_code == 1


def test_domains_merge_where_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"domain: d\ndescriptors: [{{key: {name}}}]\n")
    alone = RUN.invoke(app, ["validate", str(tmp_path)])
    assert alone.exit_code == 1
    assert "domain 'd' is already defined in" in alone.stdout
    merged = RUN.invoke(app, ["validate", "--merge-domains", "--json", str(tmp_path)])
    told = json.loads(merged.stdout)
    assert (told["ok"], told["files"], told["domains"], told["rules"]) == (True, 2, 1, 2)


def test_a_path_that_is_not_there() -> None:
    result = RUN.invoke(app, ["validate", "--json", "nowhere"])
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {"error": "nowhere: no such file or folder"}
    assert result.stderr == "extauth: nowhere: no such file or folder\n"


def test_a_folder_without_files(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    assert "no *.yaml file here" in result.stdout


def test_strict_does_not_pass_warnings(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("domain: d\nrate_limit: {unit: day, requests_per_unit: 1}\ndescriptors: [{key: k}]\n")
    warning = f"{file}:2:1: warning: 'rate_limit' has no effect here (envoyproxy/ratelimit ignores it too)"
    lax = RUN.invoke(app, ["validate", str(file)])
    assert lax.exit_code == 0
    assert lax.stdout.splitlines() == [
        f"{warning}; it belongs to a descriptor",
        "1 file, 1 domain, 1 rule: no problems, 1 warning",
    ]
    strict = RUN.invoke(app, ["validate", "--strict", str(file)])
    assert strict.exit_code == 1
    assert strict.stdout.splitlines() == [
        f"{warning}; it belongs to a descriptor",
        "1 warning, which --strict does not pass",
    ]
    assert json.loads(RUN.invoke(app, ["validate", "--strict", "--json", str(file)]).stdout)["ok"] is False
    file.write_text("domain: d\n")
    assert RUN.invoke(app, ["validate", "--strict", str(file)]).exit_code == 0


def test_yaml_that_lies_only_in_sub_folders_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/x.yaml").write_text("domain: a")
    (tmp_path / "b/deep").mkdir()
    (tmp_path / "b/deep/x.yml").write_text("domain: b")
    (tmp_path / ".hidden/x.yaml").write_text("domain: c")
    result = RUN.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    what = "no *.yaml file here, only in sub-folders, which are not read: 'a', 'b'"
    fix = "move the files up, or set EXTAUTH_CONFIG to one of these folders"
    assert result.stdout.splitlines() == [f"{tmp_path}: {what}; {fix}", "1 problem"]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.YAML", "c.json", "README.md", ".hidden.yaml", ".gitignore", "plain"):
        (tmp_path / name).write_text("domain: d")
    result = RUN.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{tmp_path}/b.YAML: warning: only *.yaml and *.yml are read; rename it",
        f"{tmp_path}/plain: warning: only *.yaml and *.yml are read; rename it",
        f"{tmp_path}/.hidden.yaml: not read: only *.yaml and *.yml are",
        f"{tmp_path}/README.md: not read: only *.yaml and *.yml are",
        f"{tmp_path}/c.json: not read: only *.yaml and *.yml are",
        "1 file, 1 domain, 0 rules: no problems, 2 warnings",
    ]
    told = json.loads(RUN.invoke(app, ["validate", "--json", str(tmp_path)]).stdout)
    assert told["unread"] == [f"{tmp_path}/{name}" for name in (".hidden.yaml", "README.md", "c.json")]
