"""`./dev bench metrics`: what all that is counted for metrics, the live page and /top costs, by CPU a decision.

One process hears of its decisions in one turn and not in the next: two processes differ by more than is asked for.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence

from bench.beside import SLOWER, CpuClock, Load, heading, interval
from bench.cases import CASES, Case
from bench.engines import Running, running

CALLS = 60_000
PAIRS = 4  # of turns, for each round, which has a process of its own
SETTLE_S = 0.05  # until the signal is heard
USUAL = ("hot", "keys_10000", "denied", "rules_10000")
# `extauth serve`, which SIGUSR2 has hear of its decisions, or not. StoreLog stays: it is part of what decides.
_SWITCHED = """
import signal
import sys
from extauth.telemetry.callers import Callers
from extauth.telemetry.metrics import Metrics

hearing = {kind: kind.batch_decided for kind in (Metrics, Callers)}
deaf = dict.fromkeys(hearing, lambda self, fact: None)

def switch(*_):
    global hearing, deaf
    hearing, deaf = deaf, hearing
    for kind, hear in hearing.items():
        kind.batch_decided = hear

signal.signal(signal.SIGUSR2, switch)
from extauth.cli import main
sys.argv = ["extauth", "serve"]
main()
"""


def metrics(names: Sequence[str], *, rounds: int, quick: bool, load: Load) -> bool:
    """Measure the usual cases, or those that are named; prints a line each. Whether none costs too much."""
    ok = True
    print(heading("with metrics : without", rounds * PAIRS), flush=True)
    calls = CALLS // (4 if quick else 1)
    for case in (CASES[name] for name in names or USUAL):
        ratios: list[float] = []
        for _ in range(rounds):
            with running("h2", "uvloop", case, program=_SWITCHED) as server:
                load(server, case, max(2 * case.keys, calls), 1)
                ratios += _pairs(server, case, calls, load)
        service = interval(ratios)
        ok = ok and not service.slower
        print(f"{case.title:<40} service {service}", flush=True)
    print(f"metrics cost at most {SLOWER} of it" if ok else f"they cost more: the whole interval lies above {SLOWER}")
    return ok


def _pairs(server: Running, case: Case, calls: int, load: Load) -> Iterator[float]:
    """With metrics beside without, in turns."""
    clock, heard = CpuClock(server.service), True
    for pair in range(PAIRS):
        spent = {True: 0, False: 0}
        for hears in (True, False) if pair % 2 else (False, True):
            if hears is not heard:
                os.kill(server.service, signal.SIGUSR2)
                time.sleep(SETTLE_S)
                heard = hears
            before = clock.ns()
            load(server, case, calls, 2 + pair)
            spent[hears] = clock.ns() - before
        yield spent[True] / spent[False]
