"""`extauth explain`."""

import click

from extauth.commands import options
from extauth.commands.output import failing, print_result

EXAMPLE = """\b
Example:
  extauth explain --config envoy/descriptors api \\
      api_key=free-tier-key masked_remote_address=192.0.2.1/32 path=/hello

Exit code: 0 where a limit applies, 1 where none does, 2 where the config cannot be read."""


@click.command(epilog=EXAMPLE)
@options.request
@options.as_json
def explain(request: options.GivenRequest, *, as_json: bool) -> None:
    """Show which rules a request hits, and why.

    Also what limits it, and what it counts. Nothing is counted, and no store is asked. Give the descriptors as Envoy
    would send them, one an argument. Entry by entry, the rule that is hit is printed with the others for its key that
    are not; secret values among these are masked. Counters are printed by their names in the store, for which
    EXTAUTH_KEY_PREFIX, EXTAUTH_KEY_SECRET and EXTAUTH_SHARDS are read as `extauth serve` reads them.
    """
    from extauth.commands.preview import preview
    from extauth.explain.explanation import descriptor_lines, explain_descriptor, summary, view

    with failing(as_json=as_json):
        planned = preview(request).planned
        told = [explain_descriptor(planned, i) for i in range(len(planned.descriptors))]
        lines = [line for i, each in enumerate(told, 1) for line in descriptor_lines(i, each, planned)]
        print_result([*lines, *summary(planned)], view(planned, told), as_json=as_json)
        if not any(planned.asked):
            raise click.exceptions.Exit(1)
