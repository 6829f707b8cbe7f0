"""Mutants of the Redis scripts, one an entry of tests/mutants/*.toml; the tests of the script must fail on each.

An entry names a piece of text that occurs once in the Lua files, what to put in its place, and why that is wrong.
"""

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.mutants.staged import ROOT, stage

TABLES = ROOT / "tests" / "mutants"
SCRIPTS = "extauth/counters/redis/lua"
_TAKE = (
    "tests/counters/test_contract.py",
    "tests/counters/test_contract_reference.py",
    "tests/counters/test_contract_changes.py",
    "tests/counters/test_contract_sliding.py",
    "tests/counters/test_redis.py",
    "tests/counters/test_redis_expiry.py",
    "tests/counters/test_redis_rights.py",
    "tests/counters/test_properties.py",
)
TESTS = {
    "take": _TAKE,
    "sliding_window": _TAKE,
    "settle": ("tests/counters/test_settle_states.py", "tests/counters/test_settle.py"),
    "give_back": ("tests/counters/test_give_back.py",),
    "replicas": ("tests/counters/test_heartbeat.py", "tests/counters/test_heartbeat_reports.py"),
}
"""Of each table, the slowest last: one failure is enough."""
IN_REDIS = "not [memory and not [denials"
FAILED = re.compile(r"^(?:FAILED|ERROR) \S+?::(\S+)", re.MULTILINE)
WITHIN_S = 240
"""A script with a mistake may loop for ever."""


class MutantError(Exception):
    """An entry of the table that does not fit the Lua files; the message says which and what would fix it."""


@dataclass(frozen=True, kw_only=True)
class LuaMutant:
    """One mistake: `text` → `becomes`; `because` says what would go wrong."""

    text: str
    becomes: str
    because: str

    def find(self, folder: Path) -> Path:
        """The one Lua file that holds the text once. Raises MutantError where there is none, or more than one place."""
        places = [path for path in sorted(folder.glob("*.lua")) for _ in range(path.read_text().count(self.text))]
        if len(places) != 1:
            found = "occurs nowhere" if not places else f"occurs {len(places)} times"
            raise MutantError(
                f"{TABLES.relative_to(ROOT)}/*.toml: the text {self.text!r} {found} in {SCRIPTS}/*.lua. Change the "
                "entry so that its text occurs there exactly once."
            )
        return places[0]


def table(name: str) -> list[LuaMutant]:
    """The entries of a table."""
    return [LuaMutant(**entry) for entry in tomllib.loads((TABLES / f"{name}.toml").read_text())["mutant"]]


def survivors(names: Sequence[str]) -> list[LuaMutant]:
    """Run the tests on every mutant of these tables, printing a line each; those that the tests do not notice."""
    folder = stage("lua")
    return [mutant for name in names for mutant in _survivors(folder, table(name), TESTS[name])]


def _survivors(folder: Path, mutants: Sequence[LuaMutant], tests: Sequence[str]) -> list[LuaMutant]:
    for mutant in mutants:
        mutant.find(folder / SCRIPTS)
    _tests_pass(folder, tests)
    alive = []
    for number, mutant in enumerate(mutants, start=1):
        path = mutant.find(folder / SCRIPTS)
        original = path.read_text()
        began = time.monotonic()
        path.write_text(original.replace(mutant.text, mutant.becomes))
        try:
            noticed_by = _first_failure(folder, tests)
        finally:
            path.write_text(original)
        if noticed_by is None:
            alive.append(mutant)
        verdict = "SURVIVED" if noticed_by is None else f"killed by {noticed_by}"
        print(f"{number}/{len(mutants)} {time.monotonic() - began:5.1f} s  {mutant.because} {verdict}", flush=True)
    return alive


def _tests_pass(folder: Path, tests: Sequence[str]) -> None:
    failed = _first_failure(folder, tests)
    if failed is not None:
        raise MutantError(
            f"The tests of the counters fail without any mutant, in {failed}: mend that first "
            "(./dev test tests/counters)."
        )


def _first_failure(folder: Path, tests: Sequence[str]) -> str | None:
    """The first test that fails there; a script that makes the tests hang is noticed too."""
    argv = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=0",
        "--hypothesis-profile=mutants",
        "-k",
        IN_REDIS,
        *tests,
    ]
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the {WITHIN_S} s that the tests may take"
    if done.returncode not in {0, 1}:
        raise MutantError(f"pytest could not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode == 0:
        return None
    failed = FAILED.search(done.stdout)
    return failed[1] if failed else "a test that did not say its name"
