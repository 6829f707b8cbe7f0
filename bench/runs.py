"""What a run of take.lua costs the store, by its calls: `python -m bench.runs [--rounds N]`.

Each line has shapes of a batch, as `runs x calls`, and the least CPU that a batch of it took, of all rounds: first on
one server, then on the only master of a cluster, which checks the slot of each key. Batches are sent one at a time.
`busiest` is 6 runs of 25 calls on the cluster beside one of 400 on the one server: the part of a batch of 400 that goes
to the busiest of three masters, with 16 shards.
"""

import argparse
import random
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

import redis

from bench.cluster import SLOTS, stores
from extauth.counters.redis.scripts import Script
from extauth.counters.redis.takes import pack_take
from extauth.limiter.counters import CounterSet, Group, LimitCheck
from extauth.rules.model import Algorithm, Limit, Unit
from scripts.stack import free_ports

SHAPES: Final = ((1, 400), (1, 100), (1, 50), (6, 25), (16, 4))
KEYS: Final = 10_000
SHARDS: Final = 16
CALLS: Final = 6_000
"""Of each shape, in a round."""


def batches(shape: tuple[int, int]) -> list[bytes]:
    """What the service sends: each run has keys of one shard."""
    random_, script = random.Random(1), Script("take")
    check = LimitCheck(Limit(1_000_000_000, Unit.DAY, Algorithm.GCRA, count_denied=False), 1)
    runs, calls = shape
    sent = []
    for _ in range(CALLS // (runs * calls)):
        parts: list[bytes] = []
        for number in range(runs):
            shard = random_.randrange(SHARDS)
            keys = [b"bench:{%02x}:%016d" % (shard, random_.randrange(KEYS // SHARDS)) for _ in range(calls)]
            head, body, _ = pack_take([Group(CounterSet((key,), (check,)), 1) for key in keys], number, b"")
            parts += (head, script.evalsha, body)
        sent.append(b"".join(parts))
    return sent


def spent_us(pid: int, connection: socket.socket, replies: BinaryIO, sent: Sequence[bytes], runs: int) -> float:
    """CPU of the store a batch, by the kernel's own count in nanoseconds (proc(5), schedstat)."""
    before = _cpu_us(pid)
    for batch in sent:
        connection.sendall(batch)
        for _ in range(runs):
            head = replies.readline()
            if not head.startswith(b"*"):
                raise SystemExit(head.decode())
            for _ in range(int(head[1:])):
                replies.readline()
    return (_cpu_us(pid) - before) / len(sent)


def _cpu_us(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def measure(rounds: int, *, clustered: bool = False) -> list[float]:
    """µs a batch of each shape."""
    options, bus_ports = (("--cluster-enabled", "yes"), free_ports(1)) if clustered else ((), ())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xa")))
        ((port, pid),) = stack.enter_context(stores(1, folder, *options, bus_ports=bus_ports)).items()
        client: Any = redis.Redis(port=port, protocol=2)
        if clustered:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.05)
        client.script_load(Script("take").eval.split(b"\r\n", 3)[3].removesuffix(b"\r\n"))
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        replies = stack.enter_context(connection.makefile("rb"))
        work = [(batches(shape), shape[0]) for shape in SHAPES]
        costs = [
            [spent_us(pid, connection, replies, sent, runs) for sent, runs in work] for _ in range(rounds + 1)
        ]  # the first of which makes the counters
        return [min(each) for each in zip(*costs[1:], strict=True)]


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    rounds = parser.parse_args().rounds
    alone = measure(rounds)
    cluster = measure(rounds, clustered=True)
    for title, costs in (("one server", alone), ("cluster", cluster)):
        shapes = [f"{runs} x {calls}: {cost:.0f} µs" for (runs, calls), cost in zip(SHAPES, costs, strict=True)]
        print(f"{title}: {', '.join(shapes)}")
    print(f"busiest {cluster[3] / alone[0]:.3f}")


if __name__ == "__main__":
    main()
