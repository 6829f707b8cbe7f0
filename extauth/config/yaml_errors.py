"""What is wrong with a text that is not YAML: in plain words, with its place and what would fix it."""

from typing import Protocol

import yaml

from extauth.errors import Diagnostic, Place

_FIXES = {
    "cannot start any token": "indent with spaces, and quote a value that begins with a sign",
    "tab character": "indent with spaces",
    "mapping values are not allowed": "write `key: value`, each key on its own line; quote a value that holds ': '",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "did not find expected ',' or": "close the bracket",
    "unexpected end of stream": "close the quote or bracket",
    "unknown escape character": "write \\\\ for a backslash, or use single quotes",
    "scanning an alias": 'quote a text that begins with *, as in `value: "*"`',
    "unacceptable character": "remove it, or write it as an escape between double quotes",
}
_ANY_FIX = "check the indentation, brackets and quotes here and on the lines above"


class _Mark(Protocol):
    line: int
    column: int


class DocumentError(Exception):
    """The text is not YAML, or it is too large or nested too deeply; the `diagnostic` says why."""

    def __init__(self, place: Place, message: str, hint: str) -> None:
        self.diagnostic = Diagnostic.error(place, message, hint)
        super().__init__(message)


def not_yaml(place: Place, what: str, hint: str = "") -> DocumentError:
    """An error for a text that is not YAML; without a `hint`, the most likely fix for `what`."""
    hint = hint or next((hint for part, hint in _FIXES.items() if part in what), _ANY_FIX)
    return DocumentError(place, f"not YAML: {what}", hint)


def place_of(file: str, mark: _Mark | None) -> Place:
    """The place of a parser's mark."""
    return Place(file, mark.line + 1, mark.column + 1) if mark is not None else Place(file, 1, 1)


def place_of_byte(file: str, data: bytes, index: int) -> Place:
    """The place of the byte at `index` of a text in UTF-8."""
    before = data[:index]
    line_start = before.rfind(b"\n") + 1
    return Place(file, before.count(b"\n") + 1, len(before[line_start:].decode("utf-8", "replace")) + 1)


def explained(error: yaml.MarkedYAMLError | yaml.reader.ReaderError, file: str, text: str) -> tuple[Place, str]:
    """Where the parser stopped, and why."""
    if isinstance(error, yaml.reader.ReaderError):
        place = place_of_byte(file, text.encode("utf-8", "surrogatepass"), error.position)
        return place, f"unacceptable character {_character(text, place)!r}"
    place = place_of(file, error.problem_mark or error.context_mark)
    what = " ".join(filter(None, (error.context, error.problem)))
    if "cannot start any token" in what:
        what = what.replace("character that", f"{_character(text, place)!r}, which")
    return place, what


def _character(text: str, place: Place) -> str:
    lines = text.split("\n")
    return lines[place.line - 1][place.column - 1 : place.column] if place.line <= len(lines) else ""
