"""How commands print and fail.

Exit codes are 0 where all is well, 1 where the answer is no, 2 where the question cannot be answered.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from extauth.errors import Diagnostic, ExtauthError


@contextmanager
def failing(*, as_json: bool) -> Iterator[None]:
    """Turn an error of ours into a line on stderr, `{"error": …}` with `as_json`, and exit code 2."""
    try:
        yield
    except ExtauthError as error:
        click.echo(f"extauth: {printable(str(error), breaks=True)}", err=True)
        if as_json:
            print_json({"error": str(error)})
        raise click.exceptions.Exit(2) from error


def print_json(view: dict[str, Any]) -> None:
    """Print one object on one line, in ASCII: it may hold bytes that are not UTF-8, as surrogate escapes."""
    click.echo(json.dumps(view))


def print_lines(lines: list[str]) -> None:
    """Print lines of text for people."""
    for line in lines:
        click.echo(printable(line))


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
