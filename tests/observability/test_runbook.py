"""The runbook: an entry for each alert, and commands that run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.stack import Stack
from tests.observability.tools import ROOT, rules

PARTS = ["**It means:**", "**Look at**", "**Do:**"]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
ENTRIES = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", RUNBOOK, re.DOTALL | re.MULTILINE))
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", RUNBOOK, re.DOTALL | re.MULTILINE)


def test_the_runbook_has_an_entry_for_each_alert_and_for_nothing_else() -> None:
    assert list(ENTRIES) == re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)
    assert ENTRIES.keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_entry_which_says_what_it_means_what_to_look_at_and_what_to_do(alert: str) -> None:
    assert ALERTS[alert]["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    assert re.findall(r"^\*\*[A-Z].*?\*\*", ENTRIES[alert], re.MULTILINE) == PARTS


def test_every_command_runs(stack: Stack, tmp_path: Path) -> None:
    """As it is written, with the variables of this stack: a grep that finds nothing fails, too."""
    for tool in ("curl", "redis-cli", "ss"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    (tmp_path / "extauth").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m extauth "$@"\n')
    (tmp_path / "extauth").chmod(0o755)
    variables, *blocks = BLOCKS
    here = {
        "ADMIN": f"http://127.0.0.1:{stack.ports.extauth[0].admin}",
        "ENVOY": f"http://127.0.0.1:{stack.ports.envoy_admin}",
        "REDIS": f"redis-cli -s {stack.redis_url.removeprefix('unix://').removesuffix('?db=0')}",
        "EXTAUTH_CONFIG": str(ROOT / "envoy/descriptors"),
    }
    assert re.findall(r"^export (\w+)=", variables, re.MULTILINE) == list(here)
    environ = {**os.environ, **here, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for command in [line for block in blocks for line in block.splitlines()]:
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environ, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, ""), command
