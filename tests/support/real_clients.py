"""Programs in other languages, above all the gRPC clients in clients/: built once, then run for a while."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.h2_peer import MESSAGE, PATH
from tests.support.programs import missing

SOURCES = Path(__file__).resolve().parents[1] / "transport/clients"
BUILT = Path(__file__).resolve().parents[2] / ".run" / "clients"


@dataclass(frozen=True)
class Counts:
    """What became of a client's calls: those that got an answer, and the others by their errors."""

    ok: int
    failed: dict[str, int]


def _go(sources: Path, folder: Path) -> list[str]:
    # Without C, so that it needs no library and runs in any container.
    _run("env", "CGO_ENABLED=0", "go", "build", "-o", str(folder / "client"), ".", cwd=sources)
    return [str(folder / "client")]


def _js(sources: Path, folder: Path) -> list[str]:
    shutil.copytree(sources, folder, dirs_exist_ok=True)
    _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", cwd=folder)
    return ["node", str(folder / "client.js")]


def _java(sources: Path, folder: Path) -> list[str]:
    jars = folder / "jars"
    _run("mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}", cwd=sources)
    _run("javac", "-cp", f"{jars}/*", "-d", str(folder), "Client.java", cwd=sources)
    return ["java", "-cp", f"{folder}:{jars}/*", "Client"]


_BUILD: dict[str, tuple[tuple[str, ...], Callable[[Path, Path], list[str]]]] = {
    "go": (("go",), _go),
    "js": (("node", "npm"), _js),
    "java": (("java", "javac", "mvn"), _java),
}
CLIENTS = ("python", *_BUILD)


def client(name: str) -> list[str]:
    """The command line of a client; without its tools the test is skipped, and fails where CI=true."""
    if name == "python":
        return [sys.executable, str(SOURCES / "grpcio_client.py")]
    return _built(name, SOURCES / name, *_BUILD[name])


def go_program(sources: Path) -> str:
    """The binary of a Go program; without Go the test is skipped, and fails where CI=true."""
    return _built(sources.name, sources, ("go",), _go)[0]


def _built(name: str, sources: Path, tools: tuple[str, ...], build: Callable[[Path, Path], list[str]]) -> list[str]:
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        missing(f"no {' and no '.join(absent)} on PATH for the program in {sources.name}")
    content = b"".join(path.read_bytes() for path in sorted(sources.iterdir()) if path.is_file())
    folder = BUILT / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    command = folder / "command.json"
    if not command.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            command.write_text(json.dumps(build(sources, folder)))
        except subprocess.SubprocessError as error:
            missing(f"the program in {sources.name} cannot be built: {getattr(error, 'stderr', error)}")
    return [str(part) for part in json.loads(command.read_text())]


def run_client(name: str, address: str, *, seconds: float, calls: int = 1_000_000, concurrency: int = 100) -> Counts:
    """Make calls over one channel, `concurrency` at a time, for so long and no more than so many."""
    argv = [*client(name), address, PATH, MESSAGE.hex(), str(seconds), str(calls), str(concurrency)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return Counts(**json.loads(done.stdout))


def _run(*argv: str, cwd: Path) -> None:
    subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=300, check=True)
