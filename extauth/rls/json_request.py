"""A `RateLimitRequest` from protobuf's JSON (protobuf.dev/programming-guides/json), read as strictly as Go's protojson.

By hand, from a table a message: a general library would take 20 MB more of memory.
"""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import MAX_FIELDS, bytes_field, number_field
from extauth.rules.model import Unit

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,39})(?:\.\d{1,40})?(?:[eE][+-]?\d{1,4})?", re.ASCII)
_UNITS: Final = {"UNKNOWN": 0, **{unit.name: unit.number for unit in Unit}}

_Place: TypeAlias = "tuple[_Place, str | int] | None"
"""Where a value is in the JSON: what it is in, and its name or index there. It becomes a text only for an error."""

_Write: TypeAlias = Callable[[int, Any, _Place], bytes]
"""Writes a field: its number, its value in JSON, and its place there."""

_Fields: TypeAlias = Mapping[str, tuple[int, _Write]]


def encode_json_request(body: bytes) -> bytes:
    """The message of a JSON text; raises InvalidRequestError, which says what is wrong and where."""
    try:
        data = json.loads(body.decode(), object_pairs_hook=_unique, parse_float=Decimal, parse_constant=_no_number)
        return _message(_REQUEST, data, None)
    except RecursionError:
        raise InvalidRequestError("the JSON is nested too deeply") from None
    except UnicodeError:  # of the body, or half a surrogate pair in it
        raise InvalidRequestError("the JSON is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidRequestError(f"not JSON: {error.msg}, at line {error.lineno}, column {error.colno}") from None
    except (ArithmeticError, ValueError) as error:
        raise InvalidRequestError(f"not JSON as protobuf has it: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice in an object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _wrong(place: _Place, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_text_of(place) or 'the message'} must be {wanted}")


def _text_of(place: _Place) -> str:
    if place is None:
        return ""
    outer, step = place
    return f"{_text_of(outer)}[{step}]" if isinstance(step, int) else f"{_text_of(outer)}.{step[:50]}".lstrip(".")


def _message(fields: _Fields, data: object, place: _Place) -> bytes:
    if not isinstance(data, dict):
        raise _wrong(place, "an object")
    written: dict[int, bytes] = {}
    for name, value in data.items():
        if name not in fields:
            raise InvalidRequestError(f"{_text_of((place, name))} is no field; the fields are {', '.join(fields)}")
        number, write = fields[name]
        if number in written:
            raise InvalidRequestError(f"{_text_of((place, name))} is there twice")
        written[number] = b"" if value is None else write(number, value, (place, name))
    return b"".join(written.values())


def _text(number: int, value: object, place: _Place) -> bytes:
    if not isinstance(value, str):
        raise _wrong(place, "a string")
    return bytes_field(number, value.encode()) if value else b""


def _bool(number: int, value: object, place: _Place) -> bytes:
    if not isinstance(value, bool):
        raise _wrong(place, "true or false")
    return number_field(number, value)


def _integer(value: object, bits: int, place: _Place) -> int:
    """A whole number; it may be a string, or be written as 1.0 or 1e2."""
    if isinstance(value, str):
        number = Decimal(value if _NUMBER.fullmatch(value) else -1)
    else:
        number = Decimal(value if isinstance(value, int | Decimal) and not isinstance(value, bool) else -1)
    if not 0 <= number < 2**bits or number != int(number):
        raise _wrong(place, f"a whole number, 0 to {2**bits - 1}")
    return int(number)


def _uint32(number: int, value: object, place: _Place) -> bytes:
    return number_field(number, _integer(value, 32, place))


def _uint64_value(number: int, value: object, place: _Place) -> bytes:
    return bytes_field(number, number_field(1, _integer(value, 64, place)))


def _unit(number: int, value: object, place: _Place) -> bytes:
    if not isinstance(value, str):
        return number_field(number, _integer(value, 31, place))
    if value not in _UNITS:
        raise _wrong(place, f"one of {', '.join(_UNITS)}")
    return number_field(number, _UNITS[value])


def _inner(fields: _Fields) -> _Write:
    return lambda number, value, place: bytes_field(number, _message(fields, value, place))


def _each(write: _Write) -> _Write:
    def write_each(number: int, value: object, place: _Place) -> bytes:
        if not isinstance(value, list):
            raise _wrong(place, "a list")
        # Where there are more, the message is refused as too large, whatever the others are.
        return b"".join([write(number, item, (place, i)) for i, item in enumerate(value[: MAX_FIELDS + 1])])

    return write_each


_ENTRY: Final[_Fields] = {"key": (1, _text), "value": (2, _text)}
_LIMIT: Final[_Fields] = {
    "requestsPerUnit": (1, _uint32),
    "requests_per_unit": (1, _uint32),
    "unit": (2, _unit),
}
_DESCRIPTOR: Final[_Fields] = {
    "entries": (1, _each(_inner(_ENTRY))),
    "limit": (2, _inner(_LIMIT)),
    "hitsAddend": (3, _uint64_value),
    "hits_addend": (3, _uint64_value),
    "isNegativeHits": (4, _bool),
    "is_negative_hits": (4, _bool),
}
_REQUEST: Final[_Fields] = {
    "domain": (1, _text),
    "descriptors": (2, _each(_inner(_DESCRIPTOR))),
    "hitsAddend": (3, _uint32),
    "hits_addend": (3, _uint32),
}
