"""`extauth top`."""

import shutil
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from extauth.commands import options
from extauth.commands.output import failing, print_json, print_lines, printable
from extauth.errors import ExtauthError

if TYPE_CHECKING:
    from extauth.commands.top_source import Source
    from extauth.telemetry.top import TopOfAll

EXAMPLE = """\b
Example, with the store of `./dev up local`:
  EXTAUTH_REDIS_URL=unix:$PWD/.run/redis.sock extauth top --once

Exit code: 0, 2 where neither a replica nor Redis has any callers to show."""

REFRESH_S = 1.0
_ADMIN = "The admin port of any one replica, such as http://127.0.0.1:6070; by default Redis is read."
_CLEAR = "\x1b[H\x1b[J"  # the cursor to the upper left, and nothing after it


@click.command(epilog=EXAMPLE)
@click.option("--admin", metavar="URL", help=_ADMIN)
@click.option("--once", is_flag=True, help="Print the table once, as if standard output were no terminal.")
@options.as_json
def top(*, admin: str | None, once: bool, as_json: bool) -> None:
    """Show who is denied most, and who calls most.

    All replicas are counted together. In a terminal the table is refreshed each second, until Ctrl-C. The numbers are
    of the last 15 to 30 minutes; replicas report theirs every 3 seconds. Values of secret keys are masked. Redis is
    that of EXTAUTH_REDIS_URL, with EXTAUTH_KEY_PREFIX as in `extauth serve`. Where that is memory:, give --admin.
    """
    from extauth.commands.top_source import AdminSource, RedisSource
    from extauth.commands.top_table import top_lines

    with failing(as_json=as_json):
        source: Source = RedisSource(options.settings_for()) if admin is None else AdminSource(admin)
        shown = source.read()
        if as_json:
            print_json(_view(shown))
        elif once or not sys.stdout.isatty():
            print_lines(top_lines(shown))
        else:
            _refresh(source, shown)


def _view(shown: "TopOfAll") -> dict[str, Any]:
    from extauth.telemetry.top import view_top

    known = {"replicas": shown.replicas, "unknown": shown.unknown, "problem": shown.problem}
    return {**known, **view_top(shown.all)}


def _refresh(source: "Source", shown: "TopOfAll") -> None:
    """Print the table again and again, as large as the terminal is; what fails meanwhile is shown below it."""
    from extauth.commands.top_table import top_lines

    problem: list[str] = []
    with suppress(KeyboardInterrupt):
        while True:
            size = shutil.get_terminal_size()
            lines = [*top_lines(shown, rows=max((size.lines - 8) // 2, 1)), *problem]
            click.echo(_CLEAR + "\n".join(printable(line)[: size.columns] for line in lines))
            time.sleep(REFRESH_S)
            try:
                shown, problem = source.read(), []
            except ExtauthError as error:
                problem = ["", f"not refreshed since {time.strftime('%X')}: {error}"]
