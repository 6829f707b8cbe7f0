"""Collects what is wrong with a config, and decides what messages show of its text and suggest in its place.

An API key may be anywhere in a file by mistake: as a tier, as a key, in a number's place. So a message shows a text
only if it is a word that is public anyway, or a misspelt one.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from extauth.errors import Diagnostic, Place, Severity, nearest
from extauth.rules.model import Unit

MAX_PROBLEMS = 50  # shown of a file
MAX_LETTERS_OFF = 2  # from a public word: what is further from all of them may be a secret
_MAX_SHOWN = 60

_UNITS = {
    **{str(unit)[:length]: unit for unit in (Unit.SECOND, Unit.MINUTE) for length in (1, 3)},
    "h": Unit.HOUR,
    "hr": Unit.HOUR,
    "d": Unit.DAY,
    "w": Unit.WEEK,
    "mo": Unit.MONTH,
    "y": Unit.YEAR,
    **{str(unit): unit for unit in Unit},
}
_RATE = re.compile(
    r"([0-9]{1,10})(?: *(?:r|req|reqs|requests?))?(?: *(?:/|per|an?|every) *([0-9]{0,5}) *([a-z]{1,7}?)s?)?",
    re.IGNORECASE,
)


class Locate(Protocol):
    """Finds the parts of a config."""

    def __call__(self, location: tuple[str | int, ...], *, at_key: bool = False) -> Place:
        """The place of the value at `location`, a path of keys and indices, or of its key."""


class Diagnostics:
    """The problems and warnings of one config, whose parts `locate` finds."""

    def __init__(self, locate: Locate) -> None:
        self.locate = locate
        self.problems: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    def add(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add diagnostics that know their place."""
        for diagnostic in diagnostics:
            (self.problems if diagnostic.severity is Severity.ERROR else self.warnings).append(diagnostic)

    def error(self, location: tuple[str | int, ...], message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Add a problem at `location`; `at_key` points at the last key itself."""
        self.problems.append(Diagnostic.error(self.locate(location, at_key=at_key), message, hint))

    def warn(self, location: tuple[str | int, ...], message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Add a warning at `location`."""
        self.warnings.append(Diagnostic.warning(self.locate(location, at_key=at_key), message, hint))


def bounded(file: str, diagnostics: list[Diagnostic], what: str) -> list[Diagnostic]:
    """The first MAX_PROBLEMS of them, and the number of all."""
    if len(diagnostics) <= MAX_PROBLEMS:
        return diagnostics
    severity = diagnostics[0].severity
    message = f"{len(diagnostics)} {what}; showing the first {MAX_PROBLEMS}"
    return [*diagnostics[:MAX_PROBLEMS], Diagnostic(severity, Place(file), message)]


def shown(text: str) -> str:
    """The text, shortened if it is too long for a message."""
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


def quoted(text: str, words: Iterable[str]) -> str:
    """` 'text'`, to be put after what the text is, if it is one of the public `words` or nearly so.

    Else ` 'fr***'`, the first two characters of at least eight, or nothing at all.
    """
    words = list(islice(words, 1000))
    near = nearest(text, words)
    if text in words or (near and _letters_off(text, near) <= MAX_LETTERS_OFF):
        return f" {shown(text)!r}"
    return f" {text[:2] + '***'!r}" if len(text) >= 8 else ""


def limit_for(value: object) -> str:
    """The correct form of a limit that was written as `10` or `10/minute`; `…` where something is missing."""
    match = _RATE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    number, several, word = match.groups() if match else ("", "", "")
    unit = _UNITS.get((word or "").lower())
    if word and unit is None:
        number = several = ""
    multiplier = f", unit_multiplier: {int(several)}" if several and int(several) > 1 else ""
    return f"{{unit: {unit or '…'}{multiplier}, requests_per_unit: {int(number) if number else '…'}}}"


def _letters_off(text: str, word: str) -> int:
    """The number of letters to add, remove or replace; the difference in length, where that alone is too much."""
    if abs(len(text) - len(word)) > MAX_LETTERS_OFF:
        return abs(len(text) - len(word))
    row = list(range(len(word) + 1))
    for i, letter in enumerate(text, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(word, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]
