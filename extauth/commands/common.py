"""What the commands share: options, how they print, and how they fail.

Exit codes are 0 where all is well, 1 where the answer is no, 2 where the question cannot be answered.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from extauth.errors import Diagnostic, ExtauthError
from extauth.settings import Settings, read_settings

if TYPE_CHECKING:
    from extauth.rules.matcher import Matcher

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="A folder of *.yaml files, or one file; by default EXTAUTH_CONFIG, then envoy/descriptors.",
    ),
]
MergeDomains = Annotated[
    bool,
    typer.Option("--merge-domains", help="Several files may speak of one domain, as with EXTAUTH_MERGE_DOMAINS=true."),
]
DomainName = Annotated[str, typer.Argument(metavar="DOMAIN", help="The rate-limit filter's domain.")]
Descriptors = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY=VALUE[,…]",
        help="A descriptor an argument, its entries parted by commas; \\, is a comma in a value, \\\\ a backslash.",
    ),
]


@contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into a line on stderr, `{"error": …}` with `as_json`, and exit code 2."""
    try:
        yield
    except ExtauthError as error:
        typer.echo(f"extauth: {printable(str(error), breaks=True)}", err=True)
        if as_json:
            print_json({"error": str(error)})
        raise typer.Exit(2) from error


def print_json(view: dict[str, Any]) -> None:
    """Print one object on one line, in ASCII: it may hold bytes that are not UTF-8, as surrogate escapes."""
    typer.echo(json.dumps(view))


def print_lines(lines: list[str]) -> None:
    """Print lines of text for people."""
    for line in lines:
        typer.echo(printable(line))


def print_result(lines: list[str], view: dict[str, Any], *, as_json: bool) -> None:
    """Print the lines, or with `as_json` the view."""
    if as_json:
        print_json(view)
    else:
        print_lines(lines)


def printable(text: str, *, breaks: bool = False) -> str:
    """A text that says to a terminal no more than it shows; `breaks` leaves line breaks and tabs in."""
    allowed = "\n\t" if breaks else ""
    return "".join(
        char if char.isprintable() or char in allowed else char.encode("unicode_escape").decode() for char in text
    )


def settings_for(config: Path | None = None, *, merge: bool = False) -> Settings:
    """The settings from EXTAUTH_* variables, over which options win; raises SettingsError."""
    settings = read_settings(os.environ)
    given: dict[str, Any] = {} if config is None else {"config": config}
    return settings.model_copy(update=given | ({"merge_domains": True} if merge else {}))


def read_matcher(settings: Settings) -> "Matcher":
    """The matcher of the rules that the settings name; raises ConfigError."""
    from extauth.config.sources.files import read_rules
    from extauth.rules.masking import Masking
    from extauth.rules.matcher import Matcher

    rules = read_rules(settings.config, merge=settings.merge_domains)
    return Matcher(rules, Masking(settings.key_secret.get_secret_value()))


def view_problem(problem: Diagnostic) -> dict[str, Any]:
    """A problem as JSON's data."""
    return {
        "file": problem.place.file,
        "line": problem.place.line,
        "column": problem.place.column,
        "message": problem.message,
        "fix": problem.hint,
    }


def many(number: int, what: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {what}" + ("" if number == 1 else "s")
