"""`extauth hash`: the digest of a key, which itself is never shown."""

import json
import os
import pty
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth.cli import app

RUN = CliRunner()
KEY = "a-key-nobody-may-see"


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (KEY, KEY),
        (f"{KEY}\n", KEY),
        (f"{KEY}\r\n", KEY),
        (f"{KEY}\n\n", f"{KEY}\n"),
        (f" {KEY}", f" {KEY}"),
        ("ü\n", "ü"),
    ],
)
def test_one_line_break_is_no_part_of_the_key(given: str, key: str) -> None:
    result = RUN.invoke(app, ["hash"], input=given)
    assert (result.exit_code, result.stdout) == (0, f"value_sha256: {sha256(key.encode()).hexdigest()}\n")
    assert KEY not in result.output
    assert ("warning" in result.stderr) == (key != key.strip())


def test_any_bytes_are_a_key() -> None:
    result = RUN.invoke(app, ["hash", "--json"], input=b"\xff\x00k")
    assert json.loads(result.stdout) == {"value_sha256": sha256(b"\xff\x00k").hexdigest()}


def test_the_config_takes_the_line(tmp_path: Path) -> None:
    line = RUN.invoke(app, ["hash"], input=KEY).stdout.strip()
    (tmp_path / "f.yaml").write_text(
        f"domain: d\ndescriptors: [{{key: k, {line}, rate_limit: {{unit: day, requests_per_unit: 1}}}}]\n"
    )
    assert RUN.invoke(app, ["explain", "--config", str(tmp_path), "d", f"k={KEY}"]).exit_code == 0
    assert RUN.invoke(app, ["explain", "--config", str(tmp_path), "d", "k=other"]).exit_code == 1


@pytest.mark.parametrize("given", ["", "\n", "\r\n"])
def test_no_key(given: str) -> None:
    result = RUN.invoke(app, ["hash"], input=given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no key on standard input" in result.stderr


@pytest.mark.parametrize("argument", [KEY, f"-{KEY}", f"--{KEY}"])
def test_a_key_among_the_arguments_is_refused_and_not_shown(argument: str) -> None:
    result = RUN.invoke(app, ["hash", argument], input="other")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hash takes no arguments" in result.stderr
    assert KEY not in result.stderr


def test_a_terminal_does_not_show_what_is_typed() -> None:
    terminal, its = pty.openpty()
    argv = [sys.executable, "-m", "extauth", "hash"]
    process = subprocess.Popen(argv, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    shown = b""
    while not shown.endswith(b"API key: "):
        shown += os.read(terminal, 1024)
    os.write(terminal, f"{KEY}\n".encode())
    try:
        while more := os.read(terminal, 1024):
            shown += more
    except OSError:  # Linux's end of a terminal whose other end is closed
        pass
    os.close(terminal)
    assert process.wait(30) == 0
    assert f"value_sha256: {sha256(KEY.encode()).hexdigest()}".encode() in shown
    assert KEY.encode() not in shown
