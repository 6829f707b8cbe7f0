"""`./dev mutants [lua [TABLE…]|python] [--sample N] [--seed S]`: make small mistakes, and see whether the tests notice.

lua: every entry of tests/mutants/TABLE.toml, in the scripts that run in Redis; exits with 1 where one survives.
python: mutmut on extauth/limiter and extauth/rls: the first mutant of every function and a sample of the others; prints
the survivors, among which there are always some that change nothing.
"""

import argparse
import sys
import time

from scripts.mutants import lua, python

SAMPLE = 150


def main() -> int:
    """Run what is named, or both."""
    parser = argparse.ArgumentParser(prog="./dev mutants", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=("lua", "python"), help="both by default")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"lua: of {', '.join(lua.TESTS)}; all by default")
    parser.add_argument(
        "--sample", type=int, default=SAMPLE, metavar="N", help=f"python: others to try, {SAMPLE} by default"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="python: which others, 0 by default")
    parser.add_argument(
        "--children", type=int, default=2, metavar="N", help="python: tests at the same time, 2 by default"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - lua.TESTS.keys():
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    tables = arguments.tables or list(lua.TESTS)
    code = 0
    try:
        if arguments.kind != "python":
            began = time.monotonic()
            alive = lua.survivors(tables)
            tried = sum(len(lua.table(name)) for name in tables)
            print(f"lua: {len(alive)} of {tried} mutants survived, in {time.monotonic() - began:.0f} s")
            code = 1 if alive else 0
        if arguments.kind != "lua":
            began = time.monotonic()
            diffs, tried = python.survivors(arguments.sample, arguments.seed, arguments.children)
            print("\n".join(diffs))
            print(f"python: {len(diffs)} of {tried} mutants survived, in {time.monotonic() - began:.0f} s")
    except lua.MutantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
