"""A `RateLimitResponse` as protobuf's JSON (protobuf.dev/programming-guides/json): what is not set is left out."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from extauth.rls.protobuf import LENGTH, VARINT, read_varint, text_of
from extauth.rules.model import Unit

_DOUBLE: Final = Struct("<d")
_CODES: Final = {0: "UNKNOWN", 1: "OK", 2: "OVER_LIMIT"}
_UNITS: Final = {0: "UNKNOWN", **{unit.number: unit.name for unit in Unit}}

_Read: TypeAlias = Callable[[Any], Any]


class _Field(NamedTuple):
    """How a field is called in JSON, and how its value is read."""

    name: str
    read: _Read
    repeated: bool = False


_Fields: TypeAlias = Mapping[int, _Field]


def json_of_response(message: bytes) -> bytes:
    """The JSON text of a message that this package has made."""
    text = json.dumps(_message(_RESPONSE, message), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # what requests bring may be no UTF-8


def _message(fields: _Fields, message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _parts(message):
        field = fields.get(number)
        if field is None:
            continue
        if field.repeated:
            found.setdefault(field.name, []).append(field.read(value))
        else:
            found[field.name] = field.read(value)
    return found


def _parts(message: bytes) -> Iterator[tuple[int, Any]]:
    """The number and the value of each field: an int for a varint, bytes for others, a double's eight among them."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 == VARINT:
            number, at = read_varint(message, at)
            yield tag >> 3, number
            continue
        length, at = read_varint(message, at) if tag & 7 == LENGTH else (8, at)
        yield tag >> 3, message[at : at + length]
        at += length


def _inner(fields: _Fields) -> _Read:
    return partial(_message, fields)


def _duration(message: bytes) -> str:
    parts = dict(_parts(message))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    return f"{seconds}.{nanos:09}".rstrip("0").rstrip(".") + "s" if nanos else f"{seconds}s"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _number(value: bytes) -> float:
    (number,) = _DOUBLE.unpack(value)
    return int(number) if number.is_integer() else number


def _struct(message: bytes) -> dict[str, Any]:
    found = {}
    for _, entry in _parts(message):
        parts = dict(_parts(entry))
        found[text_of(parts.get(1, b""))] = _value(parts[2])
    return found


def _value(message: bytes) -> Any:  # noqa: ANN401 - any JSON
    number, value = next(_parts(message))
    return _VALUES[number](value)


def _nothing(_: int) -> None: ...


_VALUES: Final[Mapping[int, _Read]] = {
    1: _nothing,
    2: _number,
    3: text_of,
    4: bool,
    5: _struct,
    6: lambda message: [_value(item) for _, item in _parts(message)],
}
_LIMIT: Final[_Fields] = {
    1: _Field("requestsPerUnit", int),
    2: _Field("unit", lambda number: _UNITS.get(number, number)),
    3: _Field("name", text_of),
}
_STATUS: Final[_Fields] = {
    1: _Field("code", lambda number: _CODES.get(number, number)),
    2: _Field("currentLimit", _inner(_LIMIT)),
    3: _Field("limitRemaining", int),
    4: _Field("durationUntilReset", _duration),
}
_HEADER: Final[_Fields] = {1: _Field("key", text_of), 2: _Field("value", text_of)}
_RESPONSE: Final[_Fields] = {
    1: _Field("overallCode", lambda number: _CODES.get(number, number)),
    2: _Field("statuses", _inner(_STATUS), repeated=True),
    3: _Field("responseHeadersToAdd", _inner(_HEADER), repeated=True),
    4: _Field("requestHeadersToAdd", _inner(_HEADER), repeated=True),
    5: _Field("rawBody", _base64),
    6: _Field("dynamicMetadata", _struct),
}
