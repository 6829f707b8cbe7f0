"""The command: `python -m scripts.stack up|down|status|logs`."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from scripts.stack import programs
from scripts.stack.errors import StackError
from scripts.stack.output import say
from scripts.stack.stack import Stack

ROOT = Path(__file__).resolve().parents[2]


def up(stack: Stack) -> int:
    """Start all and say what to try."""
    stack.up()
    if programs.prometheus() is None:
        say("prometheus  not on PATH, left out (Debian: apt install prometheus; macOS: brew install prometheus)")
    say(
        f"\nTry:  curl -i http://localhost:{stack.ports.edge}/hello\n"
        f"      ./scripts/test.sh\n"
        f"See:  http://localhost:{stack.ports.extauth[0].admin}   who is limited, live"
        + "".join(f"   (replica {i}: {each.admin})" for i, each in enumerate(stack.ports.extauth[1:], 2))
        + "\n"
        f"Logs: {os.path.relpath(stack.state)}/*.log   Stop: ./dev down"
    )
    return 0


def down(stack: Stack) -> int:
    """Stop all."""
    stopped = stack.down()
    say(f"stopped {', '.join(stopped)}" if stopped else "nothing to stop")
    return 0


def status(stack: Stack) -> int:
    """Print a line a part; exit code 1 unless all are ready."""
    rows = stack.status()
    for name, state, where in rows:
        say(f"{name:<11} {state:<20} {where}")
    return 0 if all(state.startswith("ready") for _, state, _ in rows) else 1


def logs(stack: Stack, only: list[str], *, follow: bool) -> int:
    """Show the ends of the logs, and with -f whatever is added."""
    known = stack.logs()
    if unknown := [name for name in only if name not in known]:
        msg = f"no log of {', '.join(unknown)}; there are: {', '.join(known) or 'none yet'}"
        raise StackError(msg)
    files = [str(known[name]) for name in (only or known)]
    if not files:
        msg = "no logs yet: start with ./dev up local"
        raise StackError(msg)
    os.execvp("tail", ["tail", "-n", "20", *(["-F"] if follow else []), *files])  # noqa: S606 - no shell is the point


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)  # so that `up` stops what it started, as on Ctrl-C


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="stack", description="The local stack, without containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start all; what runs already is left running")
    commands.add_parser("down", help="stop all")
    commands.add_parser("status", help="what runs")
    log = commands.add_parser("logs", help="the ends of the logs")
    log.add_argument("part", nargs="*", help="redis, extauth-1, extauth-2, echo, envoy, prometheus; all by default")
    log.add_argument("-f", "--follow", action="store_true", help="and go on with what is added")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    stack = Stack(ROOT, say=say)
    try:
        if arguments.command == "logs":
            return logs(stack, arguments.part, follow=arguments.follow)
        return {"up": up, "down": down, "status": status}[arguments.command](stack)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
