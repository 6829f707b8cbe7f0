"""`extauth replay`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extauth.commands import options
from extauth.commands.output import failing, print_json, print_lines
from extauth.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extauth.replay.log_file import LogFile
    from extauth.replay.replayer import Replayer
    from extauth.settings import Settings

EXAMPLE = """\b
Example:
  extauth replay --config new.yaml --config-before envoy/descriptors access.log

Exit code: 0 replayed, 1 no rule applies to any request, 2 a config or log cannot be read, or has no descriptors."""

_LOGS = "An access log, plain or gzip; - for standard input."
_BEFORE = "A second config, to compare with; by default the comparison is with what Envoy answered."
_HTML = "Also write the report there, as one HTML page with plots."


@click.command(epilog=EXAMPLE)
@click.argument("logs", nargs=-1, required=True, type=options.PATH, metavar="LOG...", help=_LOGS)
@options.config
@click.option("--config-before", type=options.PATH, metavar="PATH", help=_BEFORE)
@options.merge_domains
@click.option("--html", type=options.PATH, metavar="FILE", help=_HTML)
@options.as_json
def replay(
    logs: tuple[Path, ...],
    *,
    config: Path | None,
    config_before: Path | None,
    merge_domains: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Replay Envoy's access log under other rules.

    The report tells, per tier and rule, how many requests would have been allowed and denied, who would have been
    denied first, and which second had the most. Nothing is counted in a store.

    The log must have descriptors, which extauth gives Envoy with EXTAUTH_LOG_DESCRIPTORS=true. Values of secret keys
    are hashed in it: set EXTAUTH_KEY_SECRET to that of the service. Counters begin unused at the first request.
    EXTAUTH_SHADOW_MODE and the like apply as to `extauth serve`.
    """
    from extauth.replay.page import write_page
    from extauth.replay.report import view_replay
    from extauth.replay.table import table_lines

    with failing(as_json=as_json):
        settings = options.settings_for(config, merge=merge_domains)
        read = _open(logs)
        replayer = _replayer(settings, config_before)
        _run(replayer, read)
        view = view_replay(replayer, read)
        if not view["lines"]["replayed"]:
            raise CommandError(_why_nothing(view))
        if html is not None:
            write_page(html, view)
        if as_json:
            print_json(view)
        else:
            print_lines(list(table_lines(view)))
        if not view["after"]["rules"]:
            raise click.exceptions.Exit(1)


def _open(logs: "Sequence[Path]") -> "list[LogFile]":
    from extauth.replay.log_file import STDIN, LogFile

    for path in logs:
        if path != STDIN and not path.exists():
            raise CommandError(f"{path}: no such file")
        if path.is_dir():
            raise CommandError(f"{path}: is a folder; name the logs in it")
    if logs.count(STDIN) > 1:
        raise CommandError("- stands for standard input, which can be read only once")
    return list(map(LogFile, logs))


def _replayer(settings: "Settings", config_before: Path | None) -> "Replayer":
    from extauth.config.sources.files import read_rules
    from extauth.replay.replayer import Replayer
    from extauth.replay.side import Side
    from extauth.replay.tally import Timeline

    timeline = Timeline()

    def side(path: Path) -> Side:
        rules = read_rules(path, merge=settings.merge_domains)
        return Side(str(path), rules, settings.limiter_options(), timeline, settings.memory_bytes)

    return Replayer(side(settings.config_path()), None if config_before is None else side(config_before), timeline)


def _run(replayer: "Replayer", logs: "Sequence[LogFile]") -> None:
    import gc

    from extauth.replay.progress import Progress

    gc.set_threshold(100_000, 20, 100)  # reading makes very many objects, and hardly any cycles
    with Progress(logs) as progress:
        replayer.run(logs, progress.show)


def _why_nothing(view: dict[str, Any]) -> str:
    lines = view["lines"]
    if lines["without_descriptors"]:
        return (
            f"none of the {lines['read']} lines has descriptors; set EXTAUTH_LOG_DESCRIPTORS=true, and add"
            ' `ratelimit: "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:log)%"` to the json_format of the access log'
        )
    if lines["malformed"]:
        return f"none of the {lines['read']} lines is one of Envoy's JSON access log; {view['malformed'][0]}"
    return "there are no lines in the log"
