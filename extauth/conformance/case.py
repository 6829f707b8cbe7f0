"""What a case is, and what comes of one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from extauth.conformance.rules import REFERENCE_DOMAIN
from extauth.conformance.server import Server

DAY_S = 86_400


class Outcome(StrEnum):
    """What came of a case."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a case; `expected` and `seen` of one that failed, `reason` of one that is not applicable."""

    outcome: Outcome
    expected: str = ""
    seen: str = ""
    reason: str = ""


class Mark(StrEnum):
    """Whose word a case holds the server to.

    REFERENCE: the protocol's and envoyproxy/ratelimit's. DEVIATION: extauth's, where envoyproxy/ratelimit does
    otherwise; not applicable to a server that does as that one. COMPATIBLE: envoyproxy/ratelimit's, where extauth does
    so in compatible mode only; not applicable to a server that does as extauth's own mode. EXTAUTH: what extauth adds;
    not applicable to a server that does not load it.
    """

    REFERENCE = "reference"
    DEVIATION = "deviation"
    COMPATIBLE = "compatible"
    EXTAUTH = "extauth"


Check = Callable[[Server], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a server must do: `about` says what, in a sentence, and `where` where that is specified.

    The rules that it needs are those of `domain`. Windows that it counts in are whole multiples of `period_s`.
    """

    name: str
    about: str
    where: str
    check: Check
    mark: Mark = Mark.REFERENCE
    domain: str = REFERENCE_DOMAIN
    period_s: int = DAY_S


class Cases(list[Case]):
    """A table of cases, all with one mark and domain where they do not say."""

    def __init__(self, mark: Mark = Mark.REFERENCE, domain: str = REFERENCE_DOMAIN) -> None:
        super().__init__()
        self._mark = mark
        self._domain = domain

    def case(self, where: str, *, domain: str = "", period_s: int = DAY_S) -> Callable[[Check], Check]:
        """Add the decorated check: its name is the case's, its docstring what the case is about."""

        def add(check: Check) -> Check:
            name, about = check.__name__, check.__doc__ or ""
            self.append(Case(name, " ".join(about.split()), where, check, self._mark, domain or self._domain, period_s))
            return check

        return add


def compare(expected: object, seen: object) -> Result:
    """Passed where the two are equal; of mappings, a failure tells of what differs."""
    if expected == seen:
        return Result(Outcome.PASSED)
    if isinstance(expected, Mapping) and isinstance(seen, Mapping):
        expected, seen = _difference(expected, seen), _difference(seen, expected)
    return Result(Outcome.FAILED, repr(expected), repr(seen))


def compare_either(expected: object, other: object, seen: object, *, own: bool = False) -> Result:
    """Passed where `seen` is as expected, not applicable where it is as envoyproxy/ratelimit does.

    With `own`, the other way round: not applicable where it is as extauth's own mode does.
    """
    if seen == other and own:
        return not_applicable(f"the server does as extauth's own mode: {seen!r}, where the other is {expected!r}")
    if seen == other:
        return not_applicable(f"the server does as envoyproxy/ratelimit: {seen!r}, where extauth chose {expected!r}")
    return compare(expected, seen)


def not_applicable(reason: str) -> Result:
    """The case says nothing of this server."""
    return Result(Outcome.NOT_APPLICABLE, reason=reason)


def _difference(one: Mapping[Any, object], other: Mapping[Any, object]) -> dict[Any, object]:
    return {key: value for key, value in one.items() if key not in other or other[key] != value}
