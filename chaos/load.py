"""The load, in a process of its own: `python -m chaos.load FILE NAME LIMITS EDGE REPLICA…`.

EDGE and each REPLICA are ports of 127.0.0.1, and LIMITS is how many limits a call has, 1 or 2.

It asks through Envoy's EDGE and each REPLICA directly, at the rates of `CALLERS`, until its standard input ends. The
callers' API keys end in NAME, so that each round counts anew. It prints `ready`, and at the end writes a JSON object
into FILE: `samples`, each [when it was sent, seconds, way, caller, result], and `stall_s`, the longest time for which
this process was not given the processor. A way is "edge" or the number of a replica from 0. Times are those of
time.monotonic, which all processes of a machine share.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from chaos.client import SECOND_KEY, Client, Direct, Edge

TICK_S = 0.005
MAX_S = 180  # whatever becomes of the harness, it ends then
EDGE = "edge"
MORE = 50  # as many as a caller's second limit may deny at a time, while they are on their way


@dataclass(frozen=True)
class Caller:
    """Somebody who asks `rate` times a second, half of it through Envoy; `limit` is None where there is always room."""

    rate: int
    limit: int | None
    rule: str

    def config(self, more: int = 0, unit: str = "year") -> str:
        """Its rate_limit, or one of so many requests more, of a period that does not end during a run."""
        requests = 10**9 if self.limit is None else self.limit + more
        return f"{{unit: {unit}, requests_per_unit: {requests}, {self.rule}}}"


USED_UP = "spent"
"""The caller whose limit is used up before the fault."""
CALLERS = {
    "open": Caller(200, None, "algorithm: gcra"),
    "fixed": Caller(160, 500, "algorithm: fixed_window, count_denied: false"),
    "gcra": Caller(160, 500, "algorithm: gcra"),
    USED_UP: Caller(40, 20, "algorithm: sliding_window"),
}
PROBE = Caller(0, 1, "algorithm: gcra")

Sample = tuple[float, float, str, str, str]
"""(when it was sent, seconds, way, caller, result)."""


def config(limits: int = 1) -> str:
    """The descriptors of all callers: each API key that begins with a caller's name has a limit of its own.

    Where calls have two limits, the second is the one of the caller. The first is asked before it, since its rate is
    lower, and has always room, since what the second one denies is given back.
    """
    rules = []
    for name, caller in {**CALLERS, "probe": PROBE}.items():
        rule = caller.config() if limits == 1 else caller.config(more=MORE)
        rules.append(f'  - {{key: api_key, value: "{name}-*", rate_limit: {rule}}}\n')
        if limits > 1:
            rules.append(f'  - {{key: {SECOND_KEY}, value: "{name}-*", rate_limit: {caller.config(unit="day")}}}\n')
    return "domain: api\nlabels: [path]\ndescriptors:\n" + "".join(rules)


async def run(edge: int, name: str, replicas: list[int], limits: int) -> dict[str, object]:
    """Ask until standard input ends."""
    samples: list[Sample] = []

    def client(way: str, port: int) -> Client:
        def ended(sent_at: float, key: str, result: str) -> None:
            samples.append((sent_at, time.monotonic() - sent_at, way, key.partition("-")[0], result))

        return Client(port, Edge() if way == EDGE else Direct(twice=limits > 1), ended)

    clients = {EDGE: client(EDGE, edge)} | {str(i): client(str(i), port) for i, port in enumerate(replicas)}
    for each in clients.values():
        await each.start()
    rates = {
        (way, caller): CALLERS[caller].rate / 2 / (1 if way == EDGE else len(replicas))
        for way in clients
        for caller in CALLERS
    }
    owed = dict.fromkeys(rates, 0.0)
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    began = last = time.monotonic()
    stall_s = 0.0
    while not over.done() and last - began < MAX_S:
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        stall_s = max(stall_s, now - last - TICK_S)
        for (way, caller), rate in rates.items():
            owed[way, caller] += rate * min(now - last, 10 * TICK_S)  # what a stall missed is not asked all at once
            while owed[way, caller] >= 1:
                owed[way, caller] -= 1
                clients[way].ask(f"{caller}-{name}")
        last = now
    await asyncio.gather(*(each.stop() for each in clients.values()))
    return {"samples": samples, "stall_s": stall_s}


def main() -> None:
    """Run it."""
    file, name, limits, edge, *replicas = sys.argv[1:]
    Path(file).write_text(json.dumps(uvloop.run(run(int(edge), name, [int(port) for port in replicas], int(limits)))))


if __name__ == "__main__":
    main()
