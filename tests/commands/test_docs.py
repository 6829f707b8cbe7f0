"""docs/commands.md and docs/replay.md show what the commands print."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environ import INHERITED
from tests.support.process import Served
from tests.support.stores import Store

ROOT = Path(__file__).parents[2]


def shown(page: str) -> list[tuple[str, str]]:
    """The commands on a page, each with what it is shown to print."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [pair for block in blocks for pair in re.findall(r"^\$ (.*)\n((?:(?!\$).*\n)*)", block, re.MULTILINE)]


SHOWN = shown("docs/commands.md")


@pytest.fixture
def environ(own_store: Store) -> Iterator[dict[str, str]]:
    """A service runs, and `extauth` is on PATH."""
    folder = own_store.folder / "bin"
    folder.mkdir()
    (folder / "extauth").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m extauth "$@"\n')
    (folder / "extauth").chmod(0o755)
    served = Served(own_store, ROOT / "envoy/descriptors")
    served.until_it_answers()
    yield {
        **INHERITED,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "ADDRESS": served.address,
        "SOCKET": str(own_store.socket),
    }
    served.stop()


def steady(text: str) -> str:
    """Without the times, and what drains with them."""
    return re.sub(r"[0-9.]+ s$|\b[0-9]+ (used|left)|[0-9.]+ s;", "N", text, flags=re.MULTILINE)


def run(commands: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run what people would type, at this service and store in place of the local stack's."""
    here = commands.replace("127.0.0.1:8081", '"$ADDRESS"').replace("$PWD/.run/redis.sock", '"$SOCKET"')
    return subprocess.run(["sh", "-c", here], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_every_command_prints_what_the_page_shows(environ: dict[str, str]) -> None:
    assert {command.split()[1] for command, _ in SHOWN if command.startswith("extauth ")} >= {
        "validate",
        "explain",
        "check",
        "inspect",
        "reset",
        "schema",
    }
    exports = ""
    for command, told in SHOWN:
        ran = run(f"{exports}exec 2>&1; {command}", environ)
        if command.startswith("export "):
            exports += f"{command}; "
        # Standard output and error come in no fixed order.
        assert sorted(steady(ran.stdout).splitlines()) == sorted(steady(told).splitlines()), command


def test_the_page_on_replay_shows_what_its_example_prints(environ: dict[str, str]) -> None:
    [(command, told)] = shown("docs/replay.md")
    assert run(command, environ).stdout == told


@pytest.mark.parametrize("command", ["validate", "explain", "check", "inspect", "reset", "top"])
def test_the_example_of_a_commands_help_runs_as_it_is_written(environ: dict[str, str], command: str) -> None:
    told = run(f"extauth {command} --help", environ).stdout
    (example,) = re.findall(r"^ *Example.*:\n((?:.*\\\n)*.*\n)", told, re.MULTILINE)
    ran = run(example, environ)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    assert ran.stdout
