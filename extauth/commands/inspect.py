"""`extauth inspect`."""

import click

from extauth.commands import options
from extauth.commands.output import failing, print_result

EXAMPLE = """\b
Example, with the store of `./dev up local`:
  EXTAUTH_REDIS_URL=unix:$PWD/.run/redis.sock \\
      extauth inspect --config envoy/descriptors api api_key=free-tier-key

Exit code: 0, 1 where the request counts nothing, 2 where config or store cannot be read."""


@click.command(epilog=EXAMPLE)
@options.request
@options.as_json
def inspect(request: options.GivenRequest, *, as_json: bool) -> None:
    """Show what is left in a request's counters, taking nothing.

    Give the descriptors as Envoy would send them, one an argument. The store is that of EXTAUTH_REDIS_URL; the
    counters' names follow EXTAUTH_KEY_PREFIX, EXTAUTH_KEY_SECRET and EXTAUTH_SHARDS, as in `extauth serve`. Where a
    rule takes many values, the descriptor's own decide which counter is looked at. Why a limit is missing,
    `extauth explain` tells.
    """
    from extauth.commands.preview import preview
    from extauth.explain.usage import look, standing_lines, view_standings

    with failing(as_json=as_json):
        previewed = preview(request)
        plan = previewed.planned.plan
        standings = previewed.in_store(lambda counters: look(counters, plan)) if plan.names else []
        lines = standing_lines(standings) or ["the request counts nothing"]
        print_result(lines, {"counters": view_standings(standings)}, as_json=as_json)
        if not standings:
            raise click.exceptions.Exit(1)
