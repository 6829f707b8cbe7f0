"""`./dev bench metrics`: what all that is counted for metrics, the live page and /top costs, by CPU a decision.

The same tree runs with its observers and without them, as two services that are asked in turn; as `--beside` measures.
"""

from collections.abc import Sequence
from functools import partial

from bench.beside import SLOWER, Load, compare, heading
from bench.cases import CASES
from bench.engines import running

CALLS = 240_000  # a turn is a second and more: what is done once a second is not weighed by short bursts
USUAL = ("hot", "keys_10000", "denied", "rules_10000")
# `extauth serve`, in which nobody hears of decisions. StoreLog stays: it is part of what decides.
_UNOBSERVED = """
import sys
from extauth.telemetry.callers import Callers
from extauth.telemetry.history import History
from extauth.telemetry.metrics import Metrics

async def keep(self): ...

Metrics.batch_decided = Callers.batch_decided = lambda self, fact: None
History.keep = keep
from extauth.cli import main
sys.argv = ["extauth", "serve"]
main()
"""


def metrics(names: Sequence[str], *, rounds: int, quick: bool, load: Load) -> bool:
    """Measure the usual cases, or those that are named; prints a line each. Whether none costs too much."""
    ok = True
    print(heading("with metrics : without", rounds), flush=True)
    for case in (CASES[name] for name in names or USUAL):
        ours = partial(running, "h2", "uvloop", case)
        without = partial(ours, program=_UNOBSERVED)
        service, _ = compare(ours, without, case, rounds=rounds, quick=quick, load=load, usual=CALLS)
        ok = ok and not service.slower
        print(f"{case.title:<40} service {service}", flush=True)
    print(f"metrics cost at most {SLOWER} of it" if ok else f"they cost more: the whole interval lies above {SLOWER}")
    return ok
