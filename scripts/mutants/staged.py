"""A copy of the project, in which mistakes are made."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("extauth", "tests", "scripts", "fuzz", "envoy", "docs", "pyproject.toml")


def stage(name: str) -> Path:
    """Copy what the tests need to `.run/mutants/NAME`, in place of what was there."""
    folder = ROOT / ".run" / "mutants" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in COPIED:
        source = ROOT / entry
        if source.is_dir():
            shutil.copytree(source, folder / entry, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / entry)
    return folder
