"""Mutants of extauth/limiter and extauth/rls, made by mutmut (its settings are in pyproject.toml)."""

import json
import os
import random
import subprocess
from pathlib import Path

from scripts.mutants.staged import ROOT, stage

FIRST = "*__mutmut_1"
KILLED = {1, 3, -24, 24, 36, 152, 255}
"""Exit codes that mutmut takes for a test that failed, crashed or ran out of time."""


def survivors(sample: int, seed: int, children: int) -> tuple[list[str], int]:
    """Try the first mutant of every function, and so many others that are drawn by the seed.

    Returns the diffs of those that the tests do not notice, and how many were tried.
    """
    folder = stage("python")
    _mutmut(folder, "run", f"--max-children={children}", FIRST)
    others = sorted(name for name, code in _results(folder).items() if code is None)
    drawn = random.Random(seed).sample(others, min(sample, len(others)))  # noqa: S311 - it chooses, it hides nothing
    if drawn:
        _mutmut(folder, "run", f"--max-children={children}", *drawn)
    tried = {name: code for name, code in _results(folder).items() if code is not None}
    alive = sorted(name for name, code in tried.items() if code not in KILLED)
    return [_mutmut(folder, "show", name, quiet=True) for name in alive], len(tried)


def _mutmut(folder: Path, *argv: str, quiet: bool = False) -> str:
    """Run mutmut there; returns what it printed with `quiet`, else lets it print."""
    programs = ROOT / ".run" / "mutants" / "venv" / "bin"
    environ = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [programs / "mutmut", *argv],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=True,
    )
    return done.stdout or ""


def _results(folder: Path) -> dict[str, int | None]:
    """Each mutant's name, and the exit code of its tests; None where it was not tried."""
    found: dict[str, int | None] = {}
    for path in sorted(folder.glob("mutants/extauth/**/*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found
