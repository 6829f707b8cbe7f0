"""A cluster of three masters beside one server: `python -m bench.cluster [--rounds N] [--calls N] [CASE…]`.

`--streams N` are the calls in flight on each connection, 100 by default: with fewer, batches are smaller.

Both services run at a time, and are asked in turns, so that other work on the machine meets both. `ratio` is the CPU
of a decision, service and stores, beside that with one server; `busiest` the CPU of the busiest master beside that of
the one server. The CPU of a store is the process's, its cluster bus included.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import redis

from bench.beside import CpuClock
from bench.cases import CASES, Case, config
from bench.engines import ROOT, until_listening
from scripts.stack import free_ports, programs

MASTERS: Final = 3
SLOTS: Final = 16384


@dataclass(frozen=True)
class Side:
    """A service and its stores."""

    target: str
    service: int
    stores: list[int]


@contextmanager
def stores(number: int, folder: Path, *options: str, bus_ports: Sequence[int] = ()) -> Iterator[dict[int, int]]:
    """So many stores: their process IDs by port. Those of a cluster have `bus_ports` too."""
    started: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for port, bus_port in zip_longest(free_ports(number), bus_ports):
            own = folder / str(port)
            own.mkdir()
            argv: list[str | Path] = [programs.store(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            argv += ["--cluster-port", str(bus_port)] if bus_port else []
            with (own / "log").open("wb") as log:
                started[port] = subprocess.Popen([*argv, *options], stdout=log, stderr=log, cwd=own)
            until_listening(port, started[port])
        yield {port: process.pid for port, process in started.items()}
    finally:
        for process in started.values():
            process.terminate()
            process.wait(30)


@contextmanager
def clustered(folder: Path) -> Iterator[dict[int, int]]:
    """A cluster, without replicas."""
    # Their usual ones, 10,000 above the others, may be those of any outgoing connection.
    bus_ports = free_ports(MASTERS)
    with stores(MASTERS, folder, "--cluster-enabled", "yes", bus_ports=bus_ports) as pids:
        ports = list(pids)
        clients: list[Any] = [redis.Redis(port=port, protocol=2) for port in ports]
        for i, client in enumerate(clients):
            begin, end = (n * SLOTS // MASTERS for n in (i, i + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus_ports[0])
        until = time.monotonic() + 30
        while not all(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for client in clients):
            if time.monotonic() > until:
                raise SystemExit("the cluster did not start")
            time.sleep(0.05)
        yield pids


@contextmanager
def served(case: Case, url: str, pids: list[int], folder: Path) -> Iterator[Side]:
    """`extauth serve` of this tree."""
    grpc, admin = free_ports(2)
    rules = folder / "api.yaml"
    rules.write_text(config(case))
    env = os.environ | {
        "EXTAUTH_CONFIG": str(rules),
        "EXTAUTH_REDIS_URL": url,
        "EXTAUTH_REDIS_TIMEOUT": "10",
        "EXTAUTH_ON_STORE_FAILURE": "error",
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{grpc}",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "EXTAUTH_DRAIN_DELAY": "0",
    }
    argv = [sys.executable, "-m", "extauth", "serve"]
    with (folder / "log").open("wb") as log:
        service = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        until_listening(grpc, service)
        yield Side(f"127.0.0.1:{grpc}", service.pid, pids)
    finally:
        service.terminate()
        service.wait(30)


def cost(side: Side, case: Case, calls: int, seed: int) -> list[float]:
    """µs a decision of the service, and of each store."""
    argv = [sys.executable, "-m", "bench.load", side.target, case.name, str(calls), str(seed)]
    argv += [str(case.connections), str(case.streams)]
    pids = [side.service, *side.stores]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        if generator.stdin is None or generator.stdout is None or generator.stdout.readline() != "ready\n":
            raise SystemExit("the load generator did not start")
        clocks = [CpuClock(pid) for pid in pids]
        before = [clock.ns() for clock in clocks]
        generator.stdin.write("go\n")
        generator.stdin.flush()
        if not generator.stdout.readline().startswith("{"):
            raise SystemExit("the load generator failed")
        return [(clock.ns() - then) / calls / 1000 for clock, then in zip(clocks, before, strict=True)]


def measure(case: Case, rounds: int, calls: int) -> None:
    """Print one case."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xa"))) for _ in range(2)]
        alone = stack.enter_context(stores(1, folders[0]))
        many = stack.enter_context(clustered(folders[1]))
        urls = [f"redis://127.0.0.1:{next(iter(alone))}", "redis+cluster://" + ",".join(f"127.0.0.1:{p}" for p in many)]
        sides = [
            stack.enter_context(served(case, url, list(pids.values()), folder))
            for url, pids, folder in zip(urls, (alone, many), folders, strict=True)
        ]
        for side in sides:
            cost(side, case, 2 * case.keys + 1000, seed=1)
        costs: list[list[list[float]]] = [[], []]
        for n in range(rounds):
            for own, side in zip(costs, sides, strict=True):
                own.append(cost(side, case, calls, seed=2 + n))
    one, three = ([statistics.median(each) for each in zip(*own, strict=True)] for own in costs)
    ratio = statistics.median(sum(theirs) / sum(own) for own, theirs in zip(*costs, strict=True))
    masters = " + ".join([f"{each:.1f}" for each in three[1:]])
    print(f"{case.title}: one server {one[0]:.1f} + {one[1]:.1f} µs, cluster {three[0]:.1f} + {masters} µs", end="; ")
    print(f"ratio {ratio:.2f}, busiest {max(three[1:]) / one[1]:.2f}", flush=True)


def main() -> None:
    """Measure the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--calls", type=int, default=100_000, metavar="N")
    parser.add_argument("--streams", type=int, default=100, metavar="N")
    parser.add_argument("cases", nargs="*", default=["keys_10000"], metavar="CASE")
    arguments = parser.parse_args()
    for name in arguments.cases:
        measure(replace(CASES[name], streams=arguments.streams), arguments.rounds, arguments.calls)


if __name__ == "__main__":
    main()
