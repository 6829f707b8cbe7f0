"""`./dev chaos [--policy POLICY]… [FAULT…]`: faults, caused for real under load.

Starts two replicas behind a real Envoy and, for each policy of EXTAUTH_ON_STORE_FAILURE, causes each fault: of the
store and the way to it, of the replicas, and of the config. Meanwhile callers ask, half of them through Envoy and half
at the replicas directly: one with room, and three with limits that are used up during the run. Prints what failed, what
was admitted beyond the limits, how long calls took, and how long it took until calls were counted together again. Exits
with 1 where a number is not as it must be.

All of it stays on 127.0.0.1, is bounded in time, and ends by itself, for all faults within 20 minutes.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from chaos.report import HEADING, Row, markdown
from chaos.run import FAULTS, POLICIES, run_all
from chaos.stage import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- the table of ./dev chaos --write -->", "<!-- its end -->"


def main() -> None:
    """Cause all faults, or those that are named."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--policy", action="append", choices=POLICIES, help="all of them by default")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the logs of all parts there")
    parser.add_argument("--write", action="store_true", help=f"also put the table into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")

    def say(row: Row) -> None:
        print(row, *(f"\n    {each}" for each in row.wrong), sep="", flush=True)

    print(HEADING)
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        names = arguments.faults or list(FAULTS)
        rows = asyncio.run(run_all(arguments.keep or Path(folder), names, arguments.policy or POLICIES, say=say))
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{markdown(rows)}\n{END}{rest.partition(END)[2]}")
    complaints = [each for row in rows for each in row.wrong]
    print("\n".join(complaints) or "every number is as it must be")
    raise SystemExit(bool(complaints))


if __name__ == "__main__":
    main()
