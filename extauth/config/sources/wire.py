"""Protobuf's wire format for messages of many megabytes: fields are offsets, so that no level copies its parts."""

from struct import Struct
from typing import Final

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.rls.protobuf import END_GROUP, FIXED, LENGTH, MAX_GROUPS, MAX_NUMBER, START_GROUP, VARINT, read_varint

FIXED64: Final = 1
DOUBLE: Final = Struct("<d")

_CUT = "malformed message: it ends inside a field"

Field = tuple[int, int, int]
"""A field's tag (its number times 8, plus its wire type), and where its bytes begin and end; or its number and 0."""


def fields_of(message: bytes, at: int, end: int, most: int) -> list[Field]:
    """The fields of the message in `message[at:end]`, at most `most` of them.

    Groups and numbers of four bytes are left out: no message here has any. Raises InvalidRequestError where the bytes
    are no message.
    """
    found: list[Field] = []
    while at < end:
        tag = message[at]
        at += 1
        if tag >= 0x80:
            tag, at = read_varint(message, at - 1)
        wire_type = tag & 7
        if not 8 <= tag <= MAX_NUMBER << 3 | 7:
            raise InvalidRequestError(f"malformed message: a field numbered {tag >> 3}")
        if wire_type in {LENGTH, VARINT}:
            if at >= end:
                raise InvalidRequestError(_CUT)
            number = message[at]
            at += 1
            if number >= 0x80:
                number, at = read_varint(message, at - 1)
            if wire_type == VARINT:
                found.append((tag, number, 0))
            else:
                found.append((tag, at, at + number))
                at += number
        elif wire_type == FIXED64:
            found.append((tag, at, at + 8))
            at += 8
        else:
            at = _skip(message, at, end, tag)
        if at > end:
            raise InvalidRequestError(_CUT)
        if len(found) > most:
            raise RequestTooLargeError(f"more than {most} fields in a message")
    return found


def _skip(message: bytes, at: int, end: int, tag: int) -> int:
    """Where the field ends that is a number of four bytes or a group, and whose tag ends at `at`."""
    if tag & 7 in FIXED:
        return at + FIXED[tag & 7]
    if tag & 7 != START_GROUP:
        raise InvalidRequestError(f"malformed message: wire type {tag & 7}")
    groups = [tag >> 3]
    while groups:
        if at >= end:
            raise InvalidRequestError("malformed message: it ends inside a group")
        tag, at = read_varint(message, at)
        wire_type = tag & 7
        if wire_type == VARINT:
            _, at = read_varint(message, at)
        elif wire_type == LENGTH:
            size, at = read_varint(message, at)
            at += size
        elif wire_type in FIXED:
            at += FIXED[wire_type]
        elif wire_type == START_GROUP and len(groups) < MAX_GROUPS:
            groups.append(tag >> 3)
        elif wire_type != END_GROUP or groups.pop() != tag >> 3:
            raise InvalidRequestError(f"malformed message: wire type {wire_type}")
    return at
