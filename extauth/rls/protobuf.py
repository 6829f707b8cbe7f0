"""The protobuf wire format, as far as the messages here need it (protobuf.dev/programming-guides/encoding)."""

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any

from extauth.errors import InvalidRequestError, RequestTooLargeError

_DOUBLE = Struct("<d")
MAX_FIELDS = 300
MAX_GROUPS = 100  # inside one another, as protobuf's own libraries have it
MAX_NUMBER = 2**29 - 1
VARINT, LENGTH, START_GROUP, END_GROUP = 0, 2, 3, 4
FIXED = {1: 8, 5: 4}  # wire types: bytes


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) of each field: an int for a varint, bytes for a length-delimited one.

    Those of other wire types are skipped: no message here has any, and a field of another type than it should have is
    an unknown one. Raises InvalidRequestError where the bytes are no message, RequestTooLargeError for more fields than
    any honest one has.
    """
    at = read = 0
    groups: list[int] = []  # the numbers of those that are open: what is in a group is skipped with it
    while at < len(message):
        read += 1
        if read > MAX_FIELDS:
            raise RequestTooLargeError(f"more than {MAX_FIELDS} fields in a message")
        tag, at = read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= MAX_NUMBER:
            raise InvalidRequestError(f"malformed message: a field numbered {number}")
        if wire_type == VARINT:
            value, at = read_varint(message, at)
            if not groups:
                yield number, value
        elif wire_type in FIXED or wire_type == LENGTH:
            length, at = read_varint(message, at) if wire_type == LENGTH else (FIXED[wire_type], at)
            end = at + length
            if end > len(message):
                raise InvalidRequestError("malformed message: it ends inside a field")
            if wire_type == LENGTH and not groups:
                yield number, message[at:end]
            at = end
        elif wire_type == START_GROUP and len(groups) < MAX_GROUPS:
            groups.append(number)
        elif wire_type != END_GROUP or not groups or groups.pop() != number:
            raise InvalidRequestError(f"malformed message: wire type {wire_type}")
    if groups:
        raise InvalidRequestError("malformed message: it ends inside a group")


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number (64 bits) that begins at `at`, and where the bytes after it begin."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise InvalidRequestError("malformed message: it ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise InvalidRequestError("malformed message: a number longer than 10 bytes")


def text_of(value: bytes) -> str:
    """A string field's value; bytes that are not UTF-8 become surrogate escapes (PEP 383)."""
    return value.decode("utf-8", "surrogateescape")


TWO_BYTES = 0x4000  # the first number that a varint of two bytes cannot hold
MORE = [bytes((n | 0x80,)) for n in range(0x80)]  # bytes after which the number goes on
TABLED = 0x800  # of all that take two bytes, the table would hold a megabyte
SHORT = [bytes((n,)) for n in range(0x80)] + [bytes((n & 0x7F | 0x80, n >> 7)) for n in range(0x80, TABLED)]


def varint(number: int) -> bytes:
    """`number` (≥ 0) as a varint."""
    if number < TABLED:
        return SHORT[number]
    if number < TWO_BYTES:
        return MORE[number & 0x7F] + SHORT[number >> 7]
    return MORE[number & 0x7F] + MORE[number >> 7 & 0x7F] + varint(number >> 14)


def number_field(field: int, number: int) -> bytes:
    """A varint field; nothing for 0, which is a proto3 field's default."""
    return varint(field << 3) + varint(number) if number else b""


def bytes_field(field: int, value: bytes) -> bytes:
    """A string, bytes or message field, also where it is empty."""
    return varint(field << 3 | LENGTH) + varint(len(value)) + value


def struct(data: Mapping[str, Any]) -> bytes:
    """A google.protobuf.Struct of JSON's data."""
    return b"".join(
        bytes_field(1, bytes_field(1, _utf8(key)) + bytes_field(2, _value(value))) for key, value in data.items()
    )


def _value(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """A google.protobuf.Value; one of its fields is always there."""
    match value:
        case None:
            return b"\x08\x00"
        case bool():
            return b"\x20" + varint(value)
        case int() | float():
            return b"\x11" + _DOUBLE.pack(value)
        case str():
            return bytes_field(3, _utf8(value))
        case Mapping():
            return bytes_field(5, struct(value))
    return bytes_field(6, b"".join(bytes_field(1, _value(item)) for item in value))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def text_field(field: int, value: str) -> bytes:
    """A string field; nothing for an empty one."""
    return bytes_field(field, value.encode()) if value else b""
