"""Several replicas on one store beside one: `python -m bench.replicas [--rounds N] [--calls N] [CASE…]`.

The calls in flight are the same in each turn, 8 connections with 100 each, and are spread evenly over 1, 2 or 4
services that all run the whole time. `service` and `store` are the CPU of a decision in µs (medians of the rounds),
`run` the decisions that a script run in the store took. `to store` and `from store` are bytes of a decision as the
store counts them, `to service` and `from service` as a relay in front of one service does: what TCP carries, without
its own headers.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from bench.beside import CpuClock
from bench.cases import CASES, Case
from bench.cluster import Side, served, stores
from bench.engines import ROOT, free_ports

REPLICAS: Final = (1, 2, 4)
CONNECTIONS: Final = 8
STREAMS: Final = 100
RELAYED_CALLS: Final = 20_000


@dataclass(frozen=True)
class Turn:
    """What a decision cost in one turn."""

    service_us: float
    store_us: float
    run: float
    to_store: float
    from_store: float


class Load:
    """Generators of calls, one for each of the targets, which together ask `calls` times when they are told to."""

    def __init__(self, targets: Sequence[str], case: Case, calls: int, seed: int) -> None:
        self.calls = calls // len(targets) * len(targets)
        self._generators: list[subprocess.Popen[str]] = []
        shape = [str(CONNECTIONS // len(targets)), str(STREAMS)]
        for number, target in enumerate(targets):
            own = [target, case.name, str(calls // len(targets)), str(seed + number), *shape]
            argv = [sys.executable, "-m", "bench.load", *own]
            pipe = subprocess.PIPE
            self._generators.append(subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True))
        for each in self._generators:
            if each.stdout is None or each.stdout.readline() != "ready\n":
                raise SystemExit("a load generator did not start")

    def run(self) -> None:
        """Ask, and return once all is answered."""
        for each in self._generators:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in self._generators:
            assert each.stdout is not None
            if json.loads(each.stdout.readline())["calls"] == 0:
                raise SystemExit("a load generator failed")
            each.communicate()


def traffic(store: Any) -> tuple[int, int, int]:  # noqa: ANN401 - as redis-py types what it returns
    """Script runs so far, and bytes that came to the store and went from it."""
    stats, commands = store.info("stats"), store.info("commandstats")
    runs = sum(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
    return runs, stats["total_net_input_bytes"], stats["total_net_output_bytes"]


def turn(sides: Sequence[Side], store: Any, case: Case, calls: int, seed: int) -> Turn:  # noqa: ANN401
    """Ask these services at once."""
    load = Load([side.target for side in sides], case, calls, seed)
    clocks = [CpuClock(side.service) for side in sides], [CpuClock(pid) for pid in sides[0].stores]
    cpu = [sum(clock.ns() for clock in each) for each in clocks]
    before = traffic(store)
    load.run()
    runs, came, went = (now - then for now, then in zip(traffic(store), before, strict=True))
    service, own = (sum(c.ns() for c in each) - then for each, then in zip(clocks, cpu, strict=True))
    return Turn(
        service_us=service / load.calls / 1000,
        store_us=own / load.calls / 1000,
        run=load.calls / max(runs, 1),
        to_store=came / load.calls,
        from_store=went / load.calls,
    )


async def relay(target: str, port: int, counted: list[int], stop: asyncio.Event) -> None:
    """Pass on what comes to the port, and count the bytes in each direction."""
    host, _, target_port = target.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        while data := await reader.read(1 << 16):
            counted[way] += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(target_port))
        await asyncio.gather(pump(reader, inner_writer, 0), pump(inner_reader, writer, 1), return_exceptions=True)

    async with await asyncio.start_server(meet, "127.0.0.1", port):
        await stop.wait()


async def relayed(side: Side, case: Case) -> tuple[float, float]:
    """Bytes of a call and of its answer."""
    (port,), counted, stop = free_ports(1), [0, 0], asyncio.Event()
    passing = asyncio.create_task(relay(side.target, port, counted, stop))

    def ask() -> int:
        load = Load([f"127.0.0.1:{port}"], case, RELAYED_CALLS, seed=99)
        load.run()
        return load.calls

    try:
        await asyncio.sleep(0)
        calls = await asyncio.to_thread(ask)
    finally:
        stop.set()
        await passing
    return counted[0] / calls, counted[1] / calls


@contextmanager
def replicas(case: Case, number: int) -> Iterator[tuple[list[Side], Any]]:
    """So many services on one store, and a client of that."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xa")))
        pids = stack.enter_context(stores(1, folder))
        (port,) = pids
        sides = []
        for i in range(number):
            (folder / f"replica{i}").mkdir()
            sides.append(
                stack.enter_context(
                    served(case, f"redis://127.0.0.1:{port}", list(pids.values()), folder / f"replica{i}")
                )
            )
        yield sides, redis.Redis(port=port, protocol=2)


def measure(case: Case, rounds: int, calls: int) -> None:
    """Print a line for each number of replicas."""
    with replicas(case, max(REPLICAS)) as (sides, store):
        for side in sides:
            turn([side], store, case, 2 * case.keys + 1000, seed=1)
        turns: dict[int, list[Turn]] = {number: [] for number in REPLICAS}
        for n in range(rounds):
            for number in REPLICAS:
                turns[number].append(turn(sides[:number], store, case, calls, seed=10 * (2 + n)))
        sent, answered = asyncio.run(relayed(sides[0], case))
    print(f"{case.title}: to service {sent:.0f} bytes, from service {answered:.0f}")
    for number, own in turns.items():
        service, of_store, run, came, went = (
            statistics.median(getattr(each, name) for each in own)
            for name in ("service_us", "store_us", "run", "to_store", "from_store")
        )
        print(
            f"  {number} replicas: service {service:.2f} µs, store {of_store:.2f} µs, {run:.0f} decisions a run, "
            f"to store {came:.0f} bytes, from store {went:.0f}",
            flush=True,
        )


def main() -> None:
    """Measure the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--calls", type=int, default=80_000, metavar="N")
    parser.add_argument("cases", nargs="*", default=["keys_10000", "hot", "denied"], metavar="CASE")
    arguments = parser.parse_args()
    for name in arguments.cases:
        measure(CASES[name], arguments.rounds, arguments.calls)


if __name__ == "__main__":
    main()
