"""Runs the service and its store for a case, and measures what each costs."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Case, config
from scripts.stack import programs

ROOT = Path(__file__).resolve().parent.parent
# The same command line with uvloop hidden: `extauth serve` on asyncio's own loop.
PLAIN = (
    "import sys; sys.modules['uvloop'] = None; from extauth.cli import main; sys.argv = ['extauth', 'serve']; main()"
)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, in seconds (proc(5), stat 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_ports(number: int) -> list[int]:
    """Ports that are free now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def until_listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until something listens there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on {port}") from None
            time.sleep(0.02)
        else:
            return


@dataclass(frozen=True)
class Running:
    """A service that runs with its store."""

    target: str
    service: int
    store: int


@contextmanager
def running(engine: str, loop: str, case: Case, root: Path = ROOT, program: str | None = None) -> Iterator[Running]:
    """Start a store and `extauth serve` of the tree at `root`, or what `program` makes of that, and end them."""
    grpc, admin, store_port = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="xa") as folder, Path(folder, "log").open("wb") as log:
        (Path(folder) / "api.yaml").write_text(config(case))
        store_argv: list[str | Path] = [
            programs.store(),
            "--port",
            str(store_port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--maxmemory",
            "2gb",
        ]
        store = subprocess.Popen(store_argv, stdout=log, stderr=log, cwd=folder)
        env = os.environ | {
            "EXTAUTH_CONFIG": str(Path(folder) / "api.yaml"),
            "EXTAUTH_REDIS_URL": f"redis://127.0.0.1:{store_port}",
            "EXTAUTH_REDIS_TIMEOUT": "10",
            "EXTAUTH_ON_STORE_FAILURE": "error",
            "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{grpc}",
            "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "EXTAUTH_DRAIN_DELAY": "0",
            "EXTAUTH_ENGINE": engine,
        }
        program = program or (PLAIN if loop == "asyncio" else None)
        argv = [sys.executable, "-c", program] if program else [sys.executable, "-m", "extauth", "serve"]
        service = None
        try:
            until_listening(store_port, store)
            service = subprocess.Popen(argv, env=env, cwd=root, stdout=log, stderr=log)
            until_listening(grpc, service)
            yield Running(f"127.0.0.1:{grpc}", service.pid, store.pid)
        finally:
            for process in (service, store):
                if process is not None:
                    process.terminate()
                    process.wait(30)


@dataclass(frozen=True)
class Result:
    """What one case on one engine came to; CPU in µs a call."""

    service_us: float
    store_us: float
    calls_per_s: float
    p50_us: float
    p99_us: float
    rss_mb: float
    denied: float
    generator_cpu: float

    @property
    def total_us(self) -> float:
        """Service and store."""
        return self.service_us + self.store_us
