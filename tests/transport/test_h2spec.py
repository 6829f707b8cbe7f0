"""All of h2spec, strictly, in clear and over TLS."""

import subprocess
import sys
from pathlib import Path

from tests.support.programs import program

ROOT = Path(__file__).resolve().parents[2]


def test_h2spec_passes_on_both_listeners() -> None:
    program("h2spec", "go install github.com/summerwind/h2spec/cmd/h2spec@latest")
    argv = [sys.executable, "-m", "scripts.h2spec"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("146 tests, 146 passed") == 2, done.stdout
