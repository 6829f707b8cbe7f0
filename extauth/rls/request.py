"""The request: a `RateLimitRequest`'s bytes to frozen values.

The decoder is written by hand because Envoy copies header bytes into descriptors as they are. One that insists on
UTF-8 would fail the call of whoever sends an API key with a stray byte, and where Envoy lets failed calls through, that
caller would have no limit.
"""

from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeVar

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.rls.protobuf import fields, text_of
from extauth.rules.model import Unit

T = TypeVar("T", bound=tuple[Any, ...])

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
MAX_DESCRIPTORS = 100
MAX_ENTRIES = 100

_UNITS = {unit.number: unit for unit in Unit}
_DOMAIN, _DESCRIPTORS = b"\x0a\x12"  # tags: RateLimitRequest's fields 1 and 2
_FIRST, _SECOND = b"\x0a\x12"  # those of an Entry too, and of a descriptor's entries


class Entry(NamedTuple):
    """One (key, value) of a descriptor; `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry`.

    Bytes that are not UTF-8 are in it as surrogate escapes (PEP 383).
    """

    key: str
    value: str


class Override(NamedTuple):
    """`RateLimitDescriptor.RateLimitOverride`: a limit that the request brings with it."""

    requests_per_unit: int
    unit: Unit


class Descriptor(NamedTuple):
    """`RateLimitDescriptor`.

    `hits_addend` is None where the request's own counts; `is_negative_hits` gives hits back instead of taking them.
    """

    entries: tuple[Entry, ...]
    limit: Override | None = None
    hits_addend: int | None = None
    is_negative_hits: bool = False


class Request(NamedTuple):
    """`envoy.service.ratelimit.v3.RateLimitRequest`, its descriptors still encoded; `hits_addend` is at least 1."""

    domain: str
    descriptors: list[bytes]
    hits_addend: int = 1


class _New(Protocol):
    def __call__(self, kind: type[T], values: Iterable[Any], /) -> T: ...


_new: _New = tuple.__new__  # of a NamedTuple, whose own is written in Python


def split_request(message: bytes) -> Request:
    """Read a `RateLimitRequest` except for the contents of its descriptors; raises InvalidRequestError.

    Unknown fields are skipped, and known ones of another wire type; of a field that comes twice, the last counts.
    """
    domain = b""
    descriptors: list[bytes] = []
    hits_addend = at = 0
    size = len(message)
    while at + 1 < size:  # the usual fields, shorter than 128 bytes, by hopping over their lengths
        end = at + 2 + message[at + 1]
        if end > size or message[at + 1] >= 0x80:
            break
        if message[at] == _DESCRIPTORS:
            descriptors.append(message[at + 2 : end])
            if len(descriptors) > MAX_DESCRIPTORS:
                break
        elif message[at] == _DOMAIN:
            domain = message[at + 2 : end]
        else:
            break
        at = end
    if at < size and len(descriptors) <= MAX_DESCRIPTORS:
        for number, value in fields(message[at:]):
            if isinstance(value, int):
                hits_addend = value & 0xFFFFFFFF if number == 3 else hits_addend
            elif number == 1:
                domain = value
            elif number == 2:
                descriptors.append(value)
    if len(descriptors) > MAX_DESCRIPTORS:
        raise RequestTooLargeError(f"more than {MAX_DESCRIPTORS} descriptors in a request")
    return _new(Request, (domain.decode("utf-8", "surrogateescape"), descriptors, hits_addend or 1))


def decode_descriptor(message: bytes) -> Descriptor:
    """Read a `RateLimitDescriptor`; raises InvalidRequestError."""
    size = len(message)
    # The usual one: a single entry, whose key and value are shorter than 128 bytes.
    if size > 3 and message[:3:2] == b"\x0a\x0a" and message[1] == size - 2 < 0x80:
        at = 4 + message[3]
        if at + 1 < size and message[at] == 0x12 and message[at + 1] == size - at - 2:
            key = message[4:at].decode("utf-8", "surrogateescape")
            text = message[at + 2 :].decode("utf-8", "surrogateescape")
            return _new(Descriptor, ((_new(Entry, (key, text)),), None, None, False))
    entries, at = _usual_entries(message)
    limit, hits, negative = None, None, False
    for number, value in fields(message[at:]):
        if isinstance(value, int):
            negative = value != 0 if number == 4 else negative
        elif number == 1:
            entry = {1: "", 2: ""}
            entry.update((n, text_of(v)) for n, v in fields(value) if n in entry and isinstance(v, bytes))
            entries.append(Entry(entry[1], entry[2]))
            if len(entries) > MAX_ENTRIES:
                raise RequestTooLargeError(f"more than {MAX_ENTRIES} entries in a descriptor")
        elif number == 2:  # of a message that comes twice the parts are merged: as if they were one
            limit = (limit or b"") + value
        elif number == 3:
            hits = (hits or b"") + value
    return Descriptor(
        tuple(entries),
        None if limit is None else _override(limit),
        None if hits is None else _numbers(hits, 1)[0],
        negative,
    )


def _usual_entries(message: bytes) -> tuple[list[Entry], int]:
    """The entries that a descriptor begins with, up to MAX_ENTRIES, and where the first that is not as usual begins.

    The usual ones have a key and then a value, in less than 128 bytes. A request may have thousands.
    """
    at, size, first, second = 0, len(message), _FIRST, _SECOND
    text = message.decode("latin-1")  # a character a byte
    keys: list[str] = []
    values: list[str] = []
    add_key, add_value = keys.append, values.append
    while at + 5 < size and message[at] == first and message[at + 2] == first:
        inner, key = message[at + 1], message[at + 3]
        middle, end = at + 4 + key, at + 2 + inner
        if inner >= 0x80 or end > size or key + 4 > inner or message[middle] != second:
            break
        if message[middle + 1] != inner - key - 4 or len(keys) == MAX_ENTRIES:
            break
        add_key(text[at + 4 : middle])
        add_value(text[middle + 2 : end])
        at = end
    if not message[:at].isascii():
        keys, values = list(map(_utf8_of, keys)), list(map(_utf8_of, values))
    return list(map(_new, repeat(Entry), zip(keys, values, strict=True))), at


def _utf8_of(latin: str) -> str:
    """The text whose UTF-8 was read as if each byte were a character."""
    return latin if latin.isascii() else text_of(latin.encode("latin-1"))


def _override(message: bytes) -> Override:
    """Read a `RateLimitOverride`."""
    requests, number = _numbers(message, 1, 2)
    unit = _UNITS.get(number)
    if unit is None:
        known = ", ".join(f"{number} ({unit})" for number, unit in sorted(_UNITS.items()))
        raise InvalidRequestError(f"unknown unit {number} in a descriptor's limit; the units are {known}")
    return Override(requests & 0xFFFFFFFF, unit)


def _numbers(message: bytes, *wanted: int) -> list[int]:
    found = {number: value for number, value in fields(message) if number in wanted and isinstance(value, int)}
    return [found.get(number, 0) for number in wanted]
