"""`extauth reset`."""

import click

from extauth.commands import options
from extauth.commands.output import failing, many, print_lines, print_result
from extauth.errors import CommandError

EXAMPLE = """\b
Example, with the store of `./dev up local`:
  EXTAUTH_REDIS_URL=unix:$PWD/.run/redis.sock \\
      extauth reset --config envoy/descriptors --yes api api_key=free-tier-key

Exit code: 0, 1 where the request counts nothing or the answer was no, 2 where config or store cannot be read."""


@click.command(epilog=EXAMPLE)
@options.request
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def reset(request: options.GivenRequest, *, yes: bool, as_json: bool) -> None:
    """Make a request's counters whole again.

    They are shown as by `extauth inspect`; then it asks, deletes, and shows them again. Where nothing is used, it asks
    nothing. Exactly the counters shown are deleted. A replica may repeat a denial that it knows for
    EXTAUTH_DENIAL_CACHE seconds more.
    """
    from extauth.commands.preview import preview
    from extauth.explain.usage import look, standing_lines, view_standings

    with failing(as_json=as_json):
        previewed = preview(request)
        plan = previewed.planned.plan
        if not plan.names:
            print_result(["the request counts nothing"], {"deleted": 0, "before": [], "after": []}, as_json=as_json)
            raise click.exceptions.Exit(1)
        before = previewed.in_store(lambda counters: look(counters, plan))
        if not as_json:
            print_lines(standing_lines(before))
        if not yes and not any(each.used for each in before):
            view = {"deleted": 0, "before": view_standings(before), "after": view_standings(before)}
            print_result(["nothing is used, so there is nothing to delete"], view, as_json=as_json)
            return
        if not yes and not _agreed(len(before)):
            print_result(["nothing was deleted"], {"deleted": 0, "before": view_standings(before)}, as_json=as_json)
            raise click.exceptions.Exit(1)
        deleted = previewed.in_store(lambda counters: counters.forget(plan.names))
        after = previewed.in_store(lambda counters: look(counters, plan))
        view = {"deleted": deleted, "before": view_standings(before), "after": view_standings(after)}
        print_result([f"deleted {many(deleted, 'counter')}", *standing_lines(after)], view, as_json=as_json)


def _agreed(number: int) -> bool:
    try:
        return click.confirm(f"Delete {'it' if number == 1 else f'these {number}'}?", err=True)
    except click.Abort as error:
        raise CommandError("nothing was deleted; answer y, or pass --yes") from error
