"""Every error that this package raises."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice


class ExtauthError(Exception):
    """Base of all errors raised here; its text is fit for an operator to read."""


class SettingsError(ExtauthError):
    """An `EXTAUTH_*` variable is wrong, or what it names cannot be had; the text names variable, value and remedy."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing wrong in a config file; `line` and `column` count from 1, 0 where no place can be named."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class ConfigError(ExtauthError):
    """The descriptor config cannot be used; `problems` holds all that is wrong, in the order of files and lines."""

    def __init__(self, problems: Iterable[Diagnostic]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(map(str, self.problems)))


class InvalidRequestError(ExtauthError):
    """A call cannot be understood: answered with INVALID_ARGUMENT and this text."""


class RequestTooLargeError(InvalidRequestError):
    """A call is larger than what is evaluated, which whoever is limited may have caused: answered with OVER_LIMIT."""


class CommandError(ExtauthError):
    """A command was asked for what it cannot do; the text says what would help."""


class StoreError(ExtauthError):
    """The counters' store did not answer, or not with what was asked.

    `kind` is one of KINDS, for metrics: no reply in time, no connection, a reply that is an error or makes no sense, or
    a fault of ours.
    """

    KINDS = ("timeout", "connection", "reply", "internal")

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)

    @classmethod
    def unexpected(cls, error: Exception) -> "StoreError":
        """What stands for an error that nobody foresaw; it says where that was raised."""
        place = ""
        traceback = error.__traceback__
        while traceback is not None:
            place = f" in {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
            traceback = traceback.tb_next
        return cls("internal", f"asking the store failed: {type(error).__name__}: {error}{place}")


class ConformanceError(ExtauthError):
    """The conformance suite cannot run; the text says why."""


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of the names that was perhaps meant, or nothing; of very many, only the first are looked at."""
    return next(iter(difflib.get_close_matches(name[:100], list(islice(names, 1000)), 1)), "")
