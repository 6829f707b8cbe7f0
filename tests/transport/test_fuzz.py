"""The fuzz targets hold for their seeds and some mutations of these; `./dev fuzz` looks further."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.replay import TARGETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds(target: str) -> None:
    argv = [sys.executable, "-m", "fuzz.replay", target]  # a process of its own: it turns the collector off
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
