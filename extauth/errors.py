"""Every error that this package raises."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple


class ExtauthError(Exception):
    """Base of all errors of this package; the text is meant for operators."""


class SettingsError(ExtauthError):
    """An `EXTAUTH_*` variable is wrong, or its file or address is unavailable; the text names the fix, too."""


class Place(NamedTuple):
    """A place in a config; `line` and `column` count from 1, or are 0 if only the file is known."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


NOWHERE = Place("")


class Severity(StrEnum):
    """Whether a diagnostic keeps its domain from being loaded."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A mistake in a config, or what looks like one; `hint` says what would fix it."""

    severity: Severity
    place: Place
    message: str
    hint: str = ""

    @classmethod
    def error(cls, place: Place, message: str, hint: str = "") -> "Diagnostic":
        """A mistake."""
        return cls(Severity.ERROR, place, message, hint)

    @classmethod
    def warning(cls, place: Place, message: str, hint: str = "") -> "Diagnostic":
        """What looks like a mistake."""
        return cls(Severity.WARNING, place, message, hint)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class ConfigError(ExtauthError):
    """The descriptor config cannot be used; `problems` has every error, ordered by file and line."""

    def __init__(self, problems: Iterable[Diagnostic]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.place))
        super().__init__("\n".join(map(str, self.problems)))


class SourceError(ExtauthError):
    """The server that rules come from cannot be reached, or sent what makes no sense; the text says why."""


class InvalidRequestError(ExtauthError):
    """A call is malformed; it is answered INVALID_ARGUMENT with this text."""


class RequestTooLargeError(InvalidRequestError):
    """A call is too large to be evaluated, which the limited client may have caused; it is answered OVER_LIMIT."""


class CommandError(ExtauthError):
    """A command cannot do what its arguments ask for; the text says what would help."""


class StoreError(ExtauthError):
    """The store of counters did not answer, or not as expected.

    `kind` is one of KINDS, for metrics: no reply in time, no connection, a reply that is an error or makes no sense, or
    a fault of ours. `sent` says whether the store may have counted all the same.
    """

    KINDS = ("timeout", "connection", "reply", "internal")

    def __init__(self, kind: str, message: str, *, sent: bool = True) -> None:
        self.kind = kind
        self.sent = sent
        super().__init__(message)

    @classmethod
    def unexpected(cls, error: Exception) -> "StoreError":
        """A StoreError for an unexpected exception; the text says where that was raised."""
        place = ""
        traceback = error.__traceback__
        while traceback is not None:
            place = f" in {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
            traceback = traceback.tb_next
        return cls("internal", f"asking the store failed: {type(error).__name__}: {error}{place}")


class ConformanceError(ExtauthError):
    """The conformance suite cannot run; the text says why."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, or an empty string. Only the first 1000 names are compared."""
    return next(iter(difflib.get_close_matches(name[:100], list(islice(names, 1000)), 1)), "")
