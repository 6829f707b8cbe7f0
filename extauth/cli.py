"""The command `extauth`."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from extauth.commands import (
    check,
    explain,
    hash,  # noqa: A004 - it is its name
    init,
    inspect,
    replay,
    reset,
    schema,
    top,
    validate,
)
from extauth.conformance import command as conformance
from extauth.errors import ExtauthError

if TYPE_CHECKING:
    from extauth.settings import Settings


class _InOrder(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(self.commands)


# Commands inherit these: each shows its options' defaults, and takes -h for --help.
@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="extauth", message="extauth %(version)s", help="Print the version.")
def app() -> None:
    """A global rate limit service for Envoy."""


class _Serve(click.Command):
    """The command whose help lists the settings."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help text, then a line for each setting."""
        super().format_help_text(ctx, formatter)
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text("Settings are environment variables:")
            formatter.write_paragraph()
            formatter.write_text("\b\n" + "\n".join(_setting_lines()))


def _setting_lines() -> list[str]:
    from extauth.settings import Settings

    return [
        f"EXTAUTH_{name.upper()}: {field.description} (default: {_default(field.default)})"
        for name, field in Settings.model_fields.items()
    ]


def _default(value: object) -> str:
    shown = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if isinstance(shown, bool):
        return str(shown).lower()
    return str(shown or "none") if shown != 0 else "0"


@app.command(cls=_Serve, epilog="Exit code: 0 ended by SIGTERM or SIGINT, 1 it cannot start, 2 wrong options.")
@click.option("--keep-going", is_flag=True, help="Start with the domains that load, as with EXTAUTH_KEEP_GOING=true.")
def serve(*, keep_going: bool) -> None:
    """Serve rate limits over gRPC until SIGTERM."""
    from extauth.settings import read_settings

    def read() -> "tuple[Settings, Mapping[str, str]]":
        settings = read_settings(os.environ)
        return settings.model_copy(update={"keep_going": True}) if keep_going else settings, os.environ

    _serve(read)


# A server that is started with arguments there, which has none, passes them over.
@app.command(
    epilog="Exit code: 0 ended by SIGTERM or SIGINT, 1 it cannot start.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def ratelimit() -> None:
    """Serve in envoyproxy/ratelimit's place.

    Its environment variables are read, and its ports are served: gRPC, HTTP, debug and Prometheus. EXTAUTH_* variables
    win over them. A line in the log, compatible_mode, lists which variables were understood and which have no effect. A
    program that is started under the name ratelimit does the same.
    """
    from extauth.compat.environment import CompatibleEnvironment, translate
    from extauth.settings import read_settings

    found: list[CompatibleEnvironment] = []

    def read() -> "tuple[Settings, Mapping[str, str]]":
        found.append(translate(os.environ))
        return read_settings(found[0].variables), found[0].variables

    def announce(_: "Mapping[str, str]") -> None:
        from extauth.telemetry import events

        events.compatible_mode(found[0].understood, found[0].no_effect, found[0].overridden)

    _serve(read, announce)


def _serve(
    read: "Callable[[], tuple[Settings, Mapping[str, str]]]",
    announce: "Callable[[Mapping[str, str]], None] | None" = None,
) -> None:
    """Run with the settings and the environment that `read` gives."""
    import asyncio

    from extauth.lifecycle import Compose, alone, loop_factory, warn_of_reference
    from extauth.lifecycle import serve as run
    from extauth.workers.count import count_workers

    try:
        settings, environ = read()
        compose: Compose = alone
        if (workers := count_workers(settings)) > 1:
            from extauth.workers.fleet import fleet_of

            compose = fleet_of(workers)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(run(settings, dict(environ), compose, announce or warn_of_reference))
    except ExtauthError as error:
        click.echo(str(error), err=True)
        raise click.exceptions.Exit(1) from error


for command in (
    init.init,
    validate.validate,
    explain.explain,
    replay.replay,
    check.check,
    inspect.inspect,
    reset.reset,
    top.top,
    hash.hash_key,
    schema.schema,
    conformance.conformance,
):
    app.add_command(command)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="extauth")
