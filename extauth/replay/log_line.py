"""One line of Envoy's access log, and the request that it holds for extauth; limiter/descriptor_log.py writes that."""

import json
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from extauth.rls.request import Override
from extauth.rules.model import Unit

FIELD = "ratelimit"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {str(unit): unit for unit in Unit}
_HASH = re.compile("[0-9a-f]{16}")


class MalformedLineError(ValueError):
    """A line is not what Envoy writes; the message says why, and shows nothing of it."""


class LoggedLine(NamedTuple):
    """When a request began, in microseconds since the epoch; whether it was denied; what extauth was asked, as JSON.

    `asked` is None where the log has no descriptors.
    """

    time_us: int
    denied: bool
    asked: Any


class LoggedEntry(NamedTuple):
    """An entry of a descriptor: its value, or a value's beginning (None: nothing of it is shown) and hash."""

    key: str
    shown: str | None
    hash: str | None = None


class LoggedDescriptor(NamedTuple):
    """As rls.request.Descriptor, with entries whose values may be hashed."""

    entries: tuple[LoggedEntry, ...]
    limit: Override | None
    hits: int | None
    negative: bool


class LoggedRequest(NamedTuple):
    """What extauth was asked; `omitted` says why the descriptors are not in the log."""

    domain: str
    descriptors: tuple[LoggedDescriptor, ...] = ()
    hits: int = 1
    omitted: str | None = None


def read_line(line: bytes) -> LoggedLine:
    """Read a line; raises MalformedLineError. What was asked is read by `read_request`."""
    try:
        fields = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise MalformedLineError("not JSON") from None
    if not isinstance(fields, dict):
        raise MalformedLineError("not a JSON object")
    asked = fields.get(FIELD)
    if asked is None:
        return LoggedLine(0, denied=False, asked=None)
    flags = fields.get("flags")
    denied = fields.get("details") == "request_rate_limited" or (flags != "-" and "RL" in str(flags).split(","))
    return LoggedLine(_time_us(fields.get("time")), denied, asked)


def _time_us(text: object) -> int:
    try:
        time = datetime.fromisoformat(text)  # type: ignore[arg-type]  # a TypeError is caught
        since = (time if time.tzinfo is not None else time.replace(tzinfo=UTC)) - _EPOCH
    except (TypeError, ValueError, OverflowError):
        raise MalformedLineError("`time` is not a time as %START_TIME% writes it") from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def read_request(asked: object) -> LoggedRequest:
    """Read what was asked; raises MalformedLineError."""
    match asked:
        case {"domain": str(domain), "omitted": str(reason)}:
            return LoggedRequest(_text(domain), omitted=_text(reason))
        case {"domain": str(domain), "descriptors": list(descriptors), **more}:
            return LoggedRequest(_text(domain), tuple(map(_descriptor, descriptors)), _number(more.get("hits"), 1))
    raise MalformedLineError(f"`{FIELD}` has no `domain` and `descriptors`")


def _descriptor(descriptor: object) -> LoggedDescriptor:
    match descriptor:
        case {"entries": list(entries), **more}:
            hits = _number(more["hits"]) if "hits" in more else None
            limit = _override(more["limit"]) if "limit" in more else None
            return LoggedDescriptor(tuple(map(_entry, entries)), limit, hits, more.get("negative") is True)
    raise MalformedLineError(f"a descriptor in `{FIELD}` has no `entries`")


def _entry(entry: object) -> LoggedEntry:
    match entry:
        case [str(key), str(value)]:
            return LoggedEntry(_text(key), _text(value))
        case [str(key), (str() | None) as shown, str(digest)] if _HASH.fullmatch(digest):
            return LoggedEntry(_text(key), None if shown is None else _text(shown), digest)
    raise MalformedLineError(f"an entry in `{FIELD}` is neither [key, value] nor [key, beginning, hash]")


def _override(limit: object) -> Override:
    match limit:
        case [int() | float() as requests, str(unit)] if unit in _UNITS:
            return Override(_number(requests), _UNITS[unit])
    raise MalformedLineError(f"a `limit` in `{FIELD}` is not [number, unit]")


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON may have halves of surrogate pairs, which extauth never writes
        raise MalformedLineError(f"`{FIELD}` holds text that is not Unicode") from None
    return text


def _number(number: object, default: int | None = None) -> int:
    if number is None and default is not None:
        return default
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < 2**64:
        return int(number)
    raise MalformedLineError(f"a number in `{FIELD}` is none, or out of range")
