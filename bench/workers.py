"""The decisions of several workers beside those of one: `python -m bench.workers [--rounds N] [--seconds S]`.

Both services run at a time, and are asked in turns, so that other work on the machine meets both. The store is not
asked: the calls are of an `unlimited` tier. The calls of a connection differ only in their stream's number, so that
making them takes a small part of what deciding them does.

`ratio` is the decisions a second beside those of one worker, on the cores that there were, and `of_best` that of the
best turns of both, which other work disturbed least. `generator` is the part of a core that the calls took of these.
`by_cpu` is the ratio that cores for all of them would allow: the workers, times the CPU of a decision by one process,
through that of a decision by several, their parent's included.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from bench.beside import CpuClock
from bench.cases import Case, blocks, message
from bench.engines import ROOT, free_ports, rss_mb, until_listening
from extauth.transport.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    PREFACE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    frame,
    settings,
    window_update,
)
from extauth.transport.h2.grpc_framing import prefixed
from scripts.stack import programs

CONNECTIONS: Final = 8
CHUNK: Final = 100
IN_FLIGHT: Final = 4  # chunks on a connection
CONFIG: Final = """
domain: api
labels: [path]
tiers: {all: {unlimited: true}}
descriptors: [{key: api_key, tier: all}]
"""
_ANSWERED: Final = b"grpc-status"  # once in each answer
_BODY: Final = prefixed(message("key"))


def _call(stream: int, head: bytes) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, _BODY)


class Client(asyncio.Protocol):
    """A connection that keeps calls in flight from `begin` on; `answered` counts the answers."""

    def __init__(self) -> None:
        heads = blocks(Case("workers", ""), 1)
        self._first = _call(1, next(heads))
        again = _call(1, head := next(heads))
        self._calls = np.frombuffer(again * CHUNK, np.uint8).reshape(CHUNK, len(again)).copy()
        self._places = (5, 9 + len(head) + 5)  # of the stream's number in the two frames
        self._stream = 1
        self._left = self.answered = 0
        self._going = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first call, which fills the header table."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        greeting = settings({SETTINGS_INITIAL_WINDOW_SIZE: MAX_WINDOW})
        self._transport.write(PREFACE + greeting + window_update(0, MAX_WINDOW - 65_535) + self._first)

    def begin(self, *, going: bool) -> None:
        """Send calls from now on, or no more."""
        self._going = going
        while going and self._left <= (IN_FLIGHT - 1) * CHUNK:
            self._send()

    def _send(self) -> None:
        streams = np.arange(self._stream + 2, self._stream + 2 + 2 * CHUNK, 2).astype(">u4")
        self._stream += 2 * CHUNK
        for place in self._places:
            self._calls[:, place : place + 4] = streams.view(np.uint8).reshape(CHUNK, 4)
        self._transport.write(self._calls.tobytes())
        self._left += CHUNK

    def end(self) -> None:
        """Hang up."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count answers, and send as many calls."""
        answered = (self._rest + data).count(_ANSWERED)
        self._rest = data[1 - len(_ANSWERED) :]
        self.answered += answered
        self._left -= answered
        if self._going and self._left <= (IN_FLIGHT - 1) * CHUNK:
            self._send()


@dataclass(frozen=True)
class Service:
    """A service that runs, with so many workers."""

    port: int
    parent: int
    workers: list[int]

    @property
    def pids(self) -> list[int]:
        """All of its processes."""
        return [self.parent, *self.workers]


@contextmanager
def running(workers: int, store: str) -> Iterator[Service]:
    """Run a service until the block ends."""
    grpc, admin = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        (Path(folder) / "api.yaml").write_text(CONFIG)
        env = os.environ | {
            "EXTAUTH_CONFIG": folder,
            "EXTAUTH_REDIS_URL": store,
            "EXTAUTH_REDIS_TIMEOUT": "10",
            "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{grpc}",
            "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "EXTAUTH_DRAIN_DELAY": "0",
            "EXTAUTH_WORKERS": str(workers),
        }
        process = subprocess.Popen([sys.executable, "-m", "extauth", "serve"], env=env, cwd=ROOT)
        try:
            until_listening(grpc, process)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield Service(grpc, process.pid, list(map(int, children)))
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Measured:
    """One turn of a service: decisions a second, CPU of one in µs by process, and the generator's part of a core."""

    per_s: float
    cpu_us: list[float]
    generator: float


async def measure(service: Service, seconds: float) -> Measured:
    """Ask for so long, after a fifth of that which does not count."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(Client, "127.0.0.1", service.port)
        clients.append(client)
    while not all(client.answered for client in clients):  # noqa: ASYNC110 - at the beginning only
        await asyncio.sleep(0.01)
    for client in clients:
        client.begin(going=True)
    await asyncio.sleep(seconds / 5)
    clocks = [CpuClock(pid) for pid in service.pids]
    calls, began_s = sum(client.answered for client in clients), time.perf_counter()
    cpu, own = [clock.ns() for clock in clocks], time.process_time()
    await asyncio.sleep(seconds)
    calls, took_s = sum(client.answered for client in clients) - calls, time.perf_counter() - began_s
    own = time.process_time() - own
    spent = [clock.ns() - before for clock, before in zip(clocks, cpu, strict=True)]
    for client in clients:
        client.begin(going=False)
    await asyncio.sleep(0.1)
    for client in clients:
        client.end()
    return Measured(calls / took_s, [ns / 1000 / calls for ns in spent], own / took_s)


def _summary(service: Service, turns: list[Measured]) -> dict[str, object]:
    return {
        "workers": len(service.workers) or 1,
        "per_s": round(statistics.median(turn.per_s for turn in turns)),
        "cpu_us": round(statistics.median(sum(turn.cpu_us) for turn in turns), 3),
        "parent_cpu_us": round(statistics.median(turn.cpu_us[0] for turn in turns), 3) if service.workers else 0,
        "generator": round(statistics.median(turn.generator for turn in turns), 2),
        "rss_mb": [round(rss_mb(pid)) for pid in service.pids],
    }


def main() -> None:
    """Run it, and print a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    (store_port,) = free_ports(1)
    turns: tuple[list[Measured], list[Measured]] = ([], [])
    with ExitStack() as stack:
        argv: list[str | Path] = [programs.store(), "--port", str(store_port), "--bind", "127.0.0.1", "--save", ""]
        store = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(store.terminate)
        until_listening(store_port, store)
        url = f"redis://127.0.0.1:{store_port}"
        services = [stack.enter_context(running(workers, url)) for workers in (1, asked.workers)]
        for _ in range(asked.rounds):
            for service, measured in zip(services, turns, strict=True):
                measured.append(uvloop.run(measure(service, asked.seconds)))
                print(asdict(measured[-1]), file=sys.stderr, flush=True)
        one, several = (_summary(service, measured) for service, measured in zip(services, turns, strict=True))
    pairs = list(zip(*turns, strict=True))
    result = {
        "one": one,
        "several": several,
        "ratio": round(statistics.median(more.per_s / less.per_s for less, more in pairs), 3),
        "of_best": round(max(turn.per_s for turn in turns[1]) / max(turn.per_s for turn in turns[0]), 3),
        "by_cpu": round(statistics.median(asked.workers * sum(a.cpu_us) / sum(b.cpu_us) for a, b in pairs), 3),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
