"""Asks one service after the other, directly and through Envoy, and measures the CPU that a decision costs."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.beside import CpuClock
from bench.engines import ROOT
from bench.peers.services import LIMIT, Peers, Service

CONNECTIONS = (1, 8, 64)
STREAMS = 10
"""Calls in flight on each direct connection; through Envoy each connection has one request in flight."""
SECONDS = 1.0
"""How long one measurement takes, about."""
FEWEST, MOST = 1_000, 60_000
KEYS = 1_000


@dataclass(frozen=True)
class Sample:
    """One measurement: CPU in µs a decision, decisions a second, latencies in µs."""

    service_us: float
    store_us: float
    per_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Load:
    """What a load generator reports."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float


Ask = Callable[[int, int], Load]
"""(calls, seed) → what came of them. Raises SystemExit unless all are admitted."""


def direct(service: Service, connections: int) -> Ask:
    """Calls over raw HTTP/2, for random keys of KEYS."""

    def ask(calls: int, seed: int) -> Load:
        told = _load(service, "peers", calls, seed, connections)
        if told["admitted"] != told["calls"]:
            raise SystemExit(f"{service.name} admitted {told['admitted']:.0f} of {told['calls']:.0f} calls, not all")
        return Load(int(told["calls"]), told["seconds"], told["p50_us"], told["p99_us"])

    return ask


def through_envoy(service: Service, port: int, connections: int, folder: Path) -> Ask:
    """HTTP/1.1 requests by h2load, for KEYS paths in turn, each of which is a key."""
    urls, log = folder / "urls", folder / "requests"

    def ask(calls: int, _seed: int) -> Load:
        urls.write_text("".join(f"http://127.0.0.1:{port}/key-{i:07}\n" for i in range(KEYS)))
        log.unlink(missing_ok=True)
        calls = max(calls, connections)
        argv = ["h2load", "--h1", "-n", calls, "-c", connections, "-t", 1, "-i", urls, f"--log-file={log}"]
        done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, check=True).stdout
        finished = re.search(r"finished in ([\d.]+)(m?s),", done)
        if finished is None or f"status codes: {calls} 2xx" not in done:
            raise SystemExit(f"{service.name} through Envoy: not all requests were admitted:\n{done}")
        latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        seconds = float(finished[1]) / (1000 if finished[2] == "ms" else 1)
        return Load(calls, seconds, latencies[calls // 2], latencies[calls * 99 // 100])

    return ask


def in_turns(peers: Peers, asks: dict[str, Ask], rounds: int) -> dict[str, Sample]:
    """The median of each number over the rounds; in every round each service is asked once, in another order."""
    clocks = {service.name: CpuClock(service.pid) for service in peers.services}
    store = CpuClock(peers.store)
    calls = {}
    for name, ask in asks.items():
        ask(FEWEST, 1)
        warm = ask(FEWEST, 2)
        calls[name] = min(max(int(warm.calls / warm.seconds * SECONDS), FEWEST), MOST)
    samples: dict[str, list[Sample]] = {name: [] for name in asks}
    for number in range(rounds):
        names = list(asks)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            before = clocks[name].ns(), store.ns()
            load = asks[name](calls[name], 3 + number)
            spent = clocks[name].ns() - before[0], store.ns() - before[1]
            samples[name].append(
                Sample(
                    spent[0] / load.calls / 1e3,
                    spent[1] / load.calls / 1e3,
                    load.calls / load.seconds,
                    load.p50_us,
                    load.p99_us,
                )
            )
    return {name: _median(each) for name, each in samples.items()}


def admitted(service: Service) -> int:
    """How many calls for one key are admitted where LIMIT may be, of four times as many at 64 × STREAMS at once.

    The load generator gives every connection the same number of calls, so slightly fewer than that are made.
    """
    return int(_load(service, "exact", 4 * LIMIT, 1, 64)["admitted"])


def _load(service: Service, case: str, calls: int, seed: int, connections: int) -> dict[str, float]:
    target = f"127.0.0.1:{service.port}"
    argv = [sys.executable, "-m", "bench.load", target, case, str(calls), str(seed), str(connections), str(STREAMS)]
    done = subprocess.run(argv, cwd=ROOT, input="go\n", capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 2:
        raise SystemExit(f"{service.name} could not be measured:\n{done.stderr}")
    told: dict[str, float] = json.loads(lines[1])
    return told


def _median(samples: list[Sample]) -> Sample:
    def of(read: Callable[[Sample], float]) -> float:
        return median(read(sample) for sample in samples)

    return Sample(
        of(lambda s: s.service_us),
        of(lambda s: s.store_us),
        of(lambda s: s.per_s),
        of(lambda s: s.p50_us),
        of(lambda s: s.p99_us),
    )
