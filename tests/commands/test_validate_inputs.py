"""`extauth validate` of standard input, pipes and Kubernetes manifests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from extauth.cli import app

ROOT = Path(__file__).parents[2]
RUN = CliRunner()

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
