"""The command `extauth`."""

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from extauth.commands import check, explain, hash, inspect, reset, schema, validate  # noqa: A004 - it is its name
from extauth.conformance import command as conformance
from extauth.errors import ExtauthError
from extauth.settings import Settings, read_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"extauth {version('extauth')}")
        raise typer.Exit


@app.callback()
def extauth(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A global rate limit service for Envoy."""


def _settings_help() -> str:
    lines = ["Serve rate limits over gRPC until SIGTERM.", "", "Settings are environment variables:", "", "\b"]
    for name, field in Settings.model_fields.items():
        lines.append(f"EXTAUTH_{name.upper()}: {field.description} (default: {_default(field.default)})")
    return "\n".join(lines)


def _default(value: object) -> str:
    shown = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if isinstance(shown, bool):
        return str(shown).lower()
    return str(shown or "none") if shown != 0 else "0"


@app.command(help=_settings_help())
def serve(
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Start with the domains that load, as with EXTAUTH_KEEP_GOING=true."),
    ] = False,
) -> None:
    """Run the service."""
    from extauth.lifecycle import serve as run  # noqa: PLC0415 - a second of imports that --help does not need

    try:
        settings = read_settings(os.environ)
        if keep_going:
            settings = settings.model_copy(update={"keep_going": True})
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(settings, dict(os.environ)))
    except ExtauthError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's loop, or None, asyncio's own, where there is no uvloop."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


app.command(epilog=validate.EXAMPLE)(validate.validate)
app.command(epilog=explain.EXAMPLE)(explain.explain)
app.command(epilog=check.EXAMPLE)(check.check)
app.command(epilog=inspect.EXAMPLE)(inspect.inspect)
app.command(epilog=reset.EXAMPLE)(reset.reset)
app.command("hash", epilog=hash.EXAMPLE, context_settings=hash.CONTEXT)(hash.hash_key)
app.command(epilog=schema.EXAMPLE)(schema.schema)
app.command(epilog=conformance.EXAMPLE)(conformance.conformance)


def main() -> None:
    """Entry point of the console script."""
    app()
