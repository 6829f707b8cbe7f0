"""`./dev adversary [--short] [--rounds N] [CLIENT…]`: hostile clients beside honest ones.

Starts the stack with a real Envoy, once as shipped and once with Envoy's own defaults for what a client may send, and
lets each hostile client at it for a few seconds, through Envoy or connected to a replica of extauth directly. Beside it
two honest callers ask: one whose limit is used up, so that each of its requests must be denied, and one with room, so
that none may be. Prints what passed, what failed, and what it cost. Exits with 1 where a request passed or failed that
must not.

The long form ends with gRPC clients in Python, Go, JavaScript and Java, a minute each, of which each call must be
answered.

`--bare` takes away what envoy.yaml and cds.yaml set against resets, and leaves Envoy's own defaults.

All of it stays on 127.0.0.1, is bounded in time, and ends by itself.
"""

import argparse
import asyncio

from adversary.attacks import ATTACKS
from adversary.envoy_edits import bare
from adversary.report import HEADING, Row, table, wrong
from adversary.run import run_all, well_behaved

LONG_S, SHORT_S = 10.0, 3.0
WELL_BEHAVED_S = 60.0


def main() -> None:
    """Run all clients, or those that are named."""
    parser = argparse.ArgumentParser(prog="./dev adversary", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help=f"{SHORT_S:.0f} s a client instead of {LONG_S:.0f}, one round"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="of each client, 5 by default; the table has medians"
    )
    parser.add_argument("--bare", action="store_true", help="without the settings that protect Envoy from resets")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"of: {', '.join(ATTACKS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.clients) - ATTACKS.keys():
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    seconds = SHORT_S if arguments.short else LONG_S
    rounds = 1 if arguments.short else arguments.rounds

    print(HEADING)

    def say(row: Row) -> None:
        print(row, flush=True)

    edit = bare if arguments.bare else None
    clients = arguments.clients or list(ATTACKS)
    rows = asyncio.run(run_all(clients, seconds=seconds, rounds=rounds, say=say, edit=edit))
    print("Medians:", table(rows), sep="\n")
    complaints = wrong(rows, strict=not arguments.short)
    if not arguments.short and not arguments.clients:
        for name, counts in asyncio.run(well_behaved(WELL_BEHAVED_S)).items():
            print(f"gRPC client in {name}: {counts.ok} answered, {counts.failed or 'none'} failed", flush=True)
            complaints += [f"{number} calls of the client in {name} failed: {e}" for e, number in counts.failed.items()]
    print("\n".join(complaints) or "no request passed that must not, and none failed")
    raise SystemExit(bool(complaints))


if __name__ == "__main__":
    main()
