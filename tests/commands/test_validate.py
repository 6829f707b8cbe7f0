"""`extauth validate`: what it says of files, and the plain YAML that it makes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from extauth.cli import app
from extauth.config.merge import load_rules
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit, Rule

ROOT = Path(__file__).parents[2]
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
        ("", f"  - {{key: k, values: ['a*'], {LIMIT}}}}}", 3, "for a wildcard"),
        ("", "  - {key: a, value: x}\n  - {key: a_x}", 4, "the same as line 3"),
        ("labels: [path]", f"  - {{key: 'p*', {LIMIT}}}}}", 4, "the label 'path', too"),
        ("algorithm: gcra", f"  - {{key: k, {LIMIT}, algorithm: fixed_window}}}}", 0, "that requests bring"),
        ("", f"  - key: a\n    descriptors:\n      - {{key: k, {LIMIT}, algorithm: gcra}}}}", 5, "no gcra"),
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


WRONG = "domain: d\ndescriptors: [{kee: k}]\n"
SAID = "2:16: unknown key 'kee'; did you mean 'key'?\n1 problem\n"


@pytest.mark.parametrize(("text", "code", "said"), [(WRONG, 1, f"<stdin>:{SAID}"), ("domain: d", 0, "1 file, 1 ")])
def test_standard_input(text: str, code: int, said: str) -> None:
    result = RUN.invoke(app, ["validate", "-"], input=text)
    assert result.exit_code == code
    assert result.stdout.startswith(said)


def test_standard_input_is_read_once() -> None:
    result = RUN.invoke(app, ["validate", "-", "-"], input="domain: d")
    assert result.exit_code == 2
    assert result.stderr == "extauth: - stands for standard input, which can be read only once\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"domain: d\nkey: \xff\n", "<stdin>:2:6: not UTF-8: invalid start byte; save the file as UTF-8"),
        (b"", "<stdin>:1:1: the file is empty; write `domain: NAME` and `descriptors:`"),
        (b"#" * (32 * 1024 * 1024 + 1), "<stdin>: the file is larger than 33554432 bytes; split it by domain"),
    ],
    ids=["bytes", "nothing", "too much"],
)
def test_what_cannot_be_read_from_standard_input(data: bytes, said: str) -> None:
    result = RUN.invoke(app, ["validate", "-"], input=data)
    assert (result.exit_code, result.stdout.splitlines()) == (1, [said, "1 problem"])


@pytest.mark.parametrize("text", [WRONG, "domain: d\n"])
def test_pipes(tmp_path: Path, text: str) -> None:
    """`<(…)` names the open end of a pipe, a FIFO is one with a name."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    shell = f'printf %s "$TEXT" > {fifo} & "{sys.executable}" -m extauth validate <(printf %s "$TEXT") {fifo}; echo $?'
    ran = subprocess.run(
        ["bash", "-c", shell], env=os.environ | {"TEXT": text}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if text == WRONG:
        first, second, total, code = ran.stdout.splitlines()
        assert first.startswith("/dev/fd/")
        assert first.endswith(f":{SAID.splitlines()[0]}")
        assert second == f"{fifo}:{SAID.splitlines()[0]}"
        assert (total, code) == ("2 problems", "1")
    else:
        assert ran.stdout.splitlines() == ["2 files, 2 domains, 0 rules: no problems", "0"]


MAP = """\
# of a chart
apiVersion: v1
kind: ConfigMap
metadata:
  name: limits
data:
  notes.txt: not a config
  api.yaml: |
    # the rules

    domain: api
    descriptors:
      - {key: a, tier: free}
      - {key: b, shadow_mode: true}
  quoted.yaml: "domain: q\\ndescriptors:\\n- {kee: k}\\n"
  folded.yml: >
    domain: [

  list.yaml: [a]
  again.yaml: |2+
      domain: e
      descriptors: [{key: k}, {key: k}]
  empty.yaml: |
    # nothing
"""
UNCLOSED = (
    "while parsing a flow node did not find expected node content; "
    "check the indentation, brackets and quotes here and on the lines above"
)
BLOCK = "write `list.yaml: |`, and the config under it, indented"


def test_a_configmap_is_read_as_the_folder_that_it_is_mounted_as(tmp_path: Path) -> None:
    file = tmp_path / "map.yaml"
    file.write_text(MAP)
    result = RUN.invoke(app, ["validate", str(file)])
    assert result.exit_code == 1
    assert result.stdout.replace(f"{file}", "map.yaml").splitlines() == [
        "map.yaml:13:24: in api.yaml: unknown tier; no tier is defined",
        "map.yaml:15:16: in quoted.yaml, line 3, column 4: unknown key 'kee'; did you mean 'key'?",
        f"map.yaml:16:15: in folded.yml, line 2, column 1: not YAML: {UNCLOSED}",
        f"map.yaml:19:3: in list.yaml: an entry of `data` must be a string; {BLOCK}",
        "map.yaml:22:31: in again.yaml: a descriptor with this key is already defined on line 22; keep one of the two",
        "map.yaml:23:15: in empty.yaml: the file is empty; write `domain: NAME` and `descriptors:`",
        "map.yaml:14:18: warning: in api.yaml: shadow_mode has no effect without a limit; remove it",
        "notes.txt of map.yaml: not read: only *.yaml and *.yml are",
        "6 problems",
    ]
    from_stdin = RUN.invoke(app, ["validate", "-"], input=MAP)
    assert from_stdin.stdout == result.stdout.replace(f"{file}", "<stdin>")


def test_manifests_beside_a_configmap_are_passed_over(tmp_path: Path) -> None:
    entry = "domain: d\\ndescriptors: [{key: k}]\\n"
    configmap = f'{{apiVersion: v1, kind: ConfigMap, data: {{d.yaml: "{entry}"}}}}'
    other = "{apiVersion: v1, kind: Service, spec: {ports: [1]}}"
    listed = f"{{apiVersion: v1, kind: List, items: [{other}, {configmap}]}}"
    for text in (configmap, f"---\n# Source: x\n---\n{other}\n---\n{configmap}\n---\n{other}\n", listed):
        result = RUN.invoke(app, ["validate", "-"], input=text)
        assert (result.exit_code, result.stdout) == (0, "1 file, 1 domain, 1 rule: no problems\n")
    expanded = RUN.invoke(app, ["validate", "--expand", "-"], input=configmap)
    assert yaml.safe_load(expanded.stdout) == {"domain": "d", "descriptors": [{"key": "k"}]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "apiVersion: v1\nkind: Service\n",
            "<stdin>:1:1: no ConfigMap is among these Kubernetes manifests; give the one whose `data` holds the config",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\ndata: {a.txt: x}\n",
            "<stdin>:1:1: no entry of the ConfigMap's `data` is named *.yaml or *.yml; give one such a name",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n---\n[",
            f"<stdin>:5:1: not YAML: {UNCLOSED}",
        ),
    ],
)
def test_manifests_without_a_config(text: str, said: str) -> None:
    result = RUN.invoke(app, ["validate", "-"], input=text)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == said


def test_a_configmap_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAP)
    result = RUN.invoke(app, ["validate", str(tmp_path)])
    assert result.exit_code == 1
    fix = "mount the ConfigMap as a folder, and set EXTAUTH_CONFIG to that; `extauth validate FILE` reads it as it is"
    assert result.stdout.splitlines() == [
        f"{tmp_path}/map.yaml:2:1: this is a Kubernetes manifest, and no config; {fix}",
        "1 problem",
    ]


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
