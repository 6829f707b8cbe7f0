"""`extauth replay`: the command around the replay."""

import gzip
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from extauth.rules.masking import Masking
from tests.replay.logs import SECRET, Logger, log_line, text
from tests.support.environ import INHERITED
from tests.support.process import ROOT

CONFIG = """domain: d
algorithm: gcra
tiers:
  anonymous: {unit: minute, requests_per_unit: 2}
  free: {unit: minute, requests_per_unit: 3, replaces: [{name: anonymous}]}
descriptors:
- {key: api_key, value: free-key, tier: free}
- {key: ip, tier: anonymous}
"""
ENVIRON = {**INHERITED, "PYTHONPATH": str(ROOT), "EXTAUTH_KEY_SECRET": SECRET}
MASKED = Masking(SECRET).mask("free-key")


def run(
    folder: Path, *arguments: str, stdin: bytes | None = None, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "extauth", "replay", *arguments],
        cwd=folder,
        env=ENVIRON | environ,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config of two tiers, one that is twice as wide, and a log of both tiers."""
    (tmp_path / "new.yaml").write_text(CONFIG)
    (tmp_path / "old.yaml").write_text(CONFIG.replace("requests_per_unit: 2", "requests_per_unit: 4"))
    log = Logger(CONFIG)
    lines = [log.line(n / 10, "api_key=free-key", "ip=1", denied=n > 2) for n in range(4)]
    lines += [log.line(1 + n / 10, "ip=2") for n in range(4)]
    (tmp_path / "access.log").write_bytes(text([*lines, log_line(3, None), "no JSON"]))
    return tmp_path


TABLE = f"""\
8 requests from 2023-11-15T12:00:00.000Z to 2023-11-15T12:00:01.300Z
             allowed  denied
as answered        7       1
new.yaml           5       3
compared with the log: 2 requests newly denied, of 1 caller; none newly allowed
  newly denied: ip=2, 2 times, first at 2023-11-15T12:00:01.200Z

tier       requests  allowed  denied  peak
free              4        3       1  4/s at 12:00:00
anonymous         4        2       2  4/s at 12:00:01

rule                  limit                     calls  allowed  denied  peak             first denied
ip                    2 per minute (anonymous)      4        2       2  4/s at 12:00:01  ip=2 at 12:00:01.200Z
api_key_{MASKED}  3 per minute (free)           4        3       1  4/s at 12:00:00  api_key={MASKED} at 12:00:00.300Z
1 line without descriptors
1 malformed line:
  access.log:10: not JSON
"""


def test_the_table(folder: Path) -> None:
    ran = run(folder, "--config", "new.yaml", "access.log")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.decode() == TABLE


def test_two_configs_are_shown_beside_each_other(folder: Path) -> None:
    ran = run(folder, "--config", "new.yaml", "--config-before", "old.yaml", "access.log")
    assert ran.returncode == 0
    rows = [line.split() for line in ran.stdout.decode().splitlines()]
    assert ["old.yaml", "7", "1"] in rows
    assert ["tier", "requests", "allowed", "denied", "denied", "before", "peak"] in rows
    assert ["anonymous", "4", "2", "2", "0", "4/s", "at", "12:00:01"] in rows


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("way", ["file", "stdin", "pipe"])
def test_logs_are_read_from_anywhere(folder: Path, pack: type[bytes], way: str) -> None:
    content = pack((folder / "access.log").read_bytes())
    config = ("--config", "new.yaml", "--json")
    if way == "file":
        (folder / "packed").write_bytes(content)
        ran = run(folder, *config, "packed")
    elif way == "stdin":
        ran = run(folder, *config, "-", stdin=content)
    else:
        ran = run(folder, *config, "/dev/stdin", stdin=content)
    assert ran.returncode == 0, ran.stderr
    view = json.loads(ran.stdout)
    assert (view["after"]["allowed"], view["after"]["denied"]) == (5, 3)
    assert view["lines"] == {"read": 10, "replayed": 8, "without_descriptors": 1, "malformed": 1, "late": 0}


def test_the_config_is_by_default_that_of_the_service(folder: Path) -> None:
    view = json.loads(run(folder, "--json", "access.log", EXTAUTH_CONFIG="old.yaml").stdout)
    assert view["after"]["config"] == "old.yaml"
    assert view["after"]["denied"] == 1


def test_settings_of_the_service_hold(folder: Path) -> None:
    ran = run(folder, "--config", "new.yaml", "--json", "access.log", EXTAUTH_SHADOW_MODE="true")
    assert json.loads(ran.stdout)["after"]["denied"] == 0


def test_the_page_is_written_beside_the_table(folder: Path) -> None:
    ran = run(folder, "--config", "new.yaml", "--html", "what-if.html", "access.log")
    assert ran.stdout.decode() == TABLE
    page = (folder / "what-if.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "anonymous: 2 allowed, 2 denied, of 4" in page


def test_a_wrong_secret_is_told(folder: Path) -> None:
    ran = run(folder, "--config", "new.yaml", "access.log", EXTAUTH_KEY_SECRET="salt")
    assert ran.returncode == 0
    assert b"warning: new.yaml: none of the hashed values of api_key in the log is one that the config" in ran.stdout


def test_no_secret_and_no_key_are_shown(folder: Path) -> None:
    (folder / "regex.yaml").write_text(CONFIG.replace("value: free-key", "value_regex: 'free-.*'"))
    for config in ("new.yaml", "regex.yaml"):
        ran = run(folder, "--config", config, "--html", "page.html", "access.log")
        for shown in (ran.stdout, ran.stderr, (folder / "page.html").read_bytes()):
            assert b"free-" not in shown
            assert SECRET.encode() not in shown


def test_no_rule_that_applies_is_a_no(folder: Path) -> None:
    (folder / "other.yaml").write_text("domain: other\ndescriptors: [{key: k}]")
    ran = run(folder, "--config", "other.yaml", "access.log")
    assert ran.returncode == 1
    assert b"warning: other.yaml: no rule applies to any request of the log" in ran.stdout


NOTHING: list[tuple[Sequence[str], bytes, str]] = [
    (["none.log"], b"", "none.log: no such file"),
    (["."], b"", ".: is a folder; name the logs in it"),
    (["-", "-"], b"", "- stands for standard input, which can be read only once"),
    (["--config", "none.yaml", "access.log"], b"", "none.yaml"),
    (["--config-before", "none.yaml", "access.log"], b"", "none.yaml"),
    (["--html", "none/page.html", "access.log"], b"", "none/page.html: cannot be written: No such file or directory"),
    (["-"], b"", "there are no lines in the log"),
    (["-"], b"a\nb\n", "none of the 2 lines is one of Envoy's JSON access log; <stdin>:1: not JSON"),
    (["-"], b"{}\n", "none of the 1 lines has descriptors; set EXTAUTH_LOG_DESCRIPTORS=true"),
]


@pytest.mark.parametrize(("arguments", "stdin", "message"), NOTHING, ids=lambda each: str(each)[:40])
def test_what_cannot_be_answered(folder: Path, arguments: Sequence[str], stdin: bytes, message: str) -> None:
    config = () if "--config" in arguments else ("--config", "new.yaml")
    ran = run(folder, "--json", *config, *arguments, stdin=stdin)
    assert ran.returncode == 2
    assert message in ran.stderr.decode()
    assert message in json.loads(ran.stdout)["error"]


def test_a_terminal_gets_a_progress_bar(folder: Path) -> None:
    lines = (folder / "access.log").read_bytes().splitlines(keepends=True)[:8]
    (folder / "long.log").write_bytes(b"".join(lines) * 3000)
    terminal, side = pty.openpty()
    argv = [sys.executable, "-m", "extauth", "replay", "--config", "new.yaml", "long.log"]
    with subprocess.Popen(argv, cwd=folder, env=ENVIRON, stdout=subprocess.DEVNULL, stderr=side) as process:
        os.close(side)
        shown = b""
        try:
            while chunk := os.read(terminal, 1000):
                shown += chunk
        except OSError:  # the other side is closed
            pass
    os.close(terminal)
    assert process.returncode == 0
    assert b"lines" in shown
    assert b"%" in shown
    assert shown.endswith(b"\r\x1b[K")
