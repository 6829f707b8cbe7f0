"""The messages of envoy.service.ratelimit.v3: bytes to Request, and what was settled to bytes.

Both are written here by hand. Reading, because Envoy copies header bytes into descriptors as they are: a decoder that
insists on UTF-8 would fail the call of whoever sends an API key with a stray byte, and where Envoy lets failed calls
through, that caller would have no limit. Writing, because a general library costs ten times as much as the decision.
"""

import json
from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeVar

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.limiter.request import Descriptor, Entry, Override, Request
from extauth.limiter.verdict import Code, DescriptorStatus, Verdict
from extauth.rules.model import Limit, Unit
from extauth.transport.protobuf import bytes_field, fields, number_field, struct, text_field, text_of

T = TypeVar("T", bound=tuple[Any, ...])

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
TIER_HEADER = "x-ratelimit-tier"
MAX_DESCRIPTORS = 100
MAX_ENTRIES = 100

_UNITS = {unit.number: unit for unit in Unit}
_DOMAIN, _DESCRIPTORS = b"\x0a\x12"  # tags: RateLimitRequest's fields 1 and 2
_FIRST, _SECOND = b"\x0a\x12"  # those of an Entry too, and of a descriptor's entries


class _New(Protocol):
    def __call__(self, kind: type[T], values: Iterable[Any], /) -> T: ...


_new: _New = tuple.__new__  # of a NamedTuple, whose own is written in Python


def split_request(message: bytes) -> Request:
    """Read a `RateLimitRequest` but for what stands in its descriptors; raises InvalidRequestError.

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


class ResponseHeaders(NamedTuple):
    """The names of headers in which the client is told of the tightest limit, as envoyproxy/ratelimit's."""

    limit: str = "RateLimit-Limit"
    remaining: str = "RateLimit-Remaining"
    reset: str = "RateLimit-Reset"


def encode_response(verdict: Verdict, headers: ResponseHeaders | None = None) -> bytes:
    """Write a `RateLimitResponse`.

    Durations are whole seconds, rounded up: Envoy truncates, and no client must be told to come too early. On
    OVER_LIMIT, Envoy sends `raw_body` and the headers to the client; on OK, the tier's header goes upstream.
    """
    message = number_field(1, verdict.code) + b"".join(map(encode_status, verdict.statuses))
    if verdict.code is Code.OK:
        message += admission_tail(verdict.tier)
    else:
        message += denial_tail(verdict.tier, *_exceeded(verdict))
    if headers is not None:
        message += _limit_headers(headers, verdict)
    if verdict.metadata is not None:
        message += bytes_field(6, struct(verdict.metadata))
    return message


def too_large_response() -> bytes:
    """OVER_LIMIT for a call that is too large to be evaluated: no status, for no limit was looked at."""
    body = {"error": "rate_limited", "message": "The request is too large for its rate limit to be checked."}
    headers = _header(3, "content-type", "application/json")
    return number_field(1, Code.OVER_LIMIT) + headers + bytes_field(5, json.dumps(body).encode())


def _exceeded(verdict: Verdict) -> tuple[Limit | None, int | None]:
    """The limit that a denied caller waits for, and for how many seconds."""
    held_back = verdict.held_back
    if held_back is None:
        return None, None
    wait_us = held_back.retry_after_us
    return held_back.limit, None if wait_us is None else whole_seconds(wait_us)


def _limit_headers(headers: ResponseHeaders, verdict: Verdict) -> bytes:
    """Of the limit that `retry-after` is about, on a denial; else of one that is over, or has the least left."""
    if verdict.held_back is not None:
        limit, _, reset_us = verdict.held_back
        remaining = 0
    else:
        told = min(
            (status for status in verdict.statuses if status.limit is not None),
            key=lambda status: (status.code is not Code.OVER_LIMIT, status.remaining),
            default=None,
        )
        if told is None or told.limit is None:
            return b""
        limit, remaining, reset_us = told.limit, told.remaining, told.reset_us
    numbers = (limit.requests_per_unit, remaining, whole_seconds(reset_us))
    return b"".join(_header(3, name, str(number)) for name, number in zip(headers, numbers, strict=True))


def encode_status(status: DescriptorStatus) -> bytes:
    """One of the response's `statuses`."""
    head = number_field(1, status.code)
    if status.limit is None:
        return bytes_field(2, head + number_field(3, status.remaining))
    duration = number_field(1, whole_seconds(status.reset_us))
    rest = number_field(3, status.remaining) + bytes_field(4, duration)
    return bytes_field(2, head + encode_limit(status.limit) + rest)


def encode_limit(limit: Limit) -> bytes:
    """A status's `current_limit`."""
    # Envoy derives the window from the unit: better none than a wrong one.
    unit = limit.unit.number if limit.unit_multiplier == 1 else 0
    message = number_field(1, limit.requests_per_unit) + number_field(2, unit)
    return bytes_field(2, message + text_field(3, limit.name))


def admission_tail(tier: str | None) -> bytes:
    """What follows the statuses of an admission: the header that goes upstream."""
    return b"" if tier is None else _header(4, TIER_HEADER, tier)


def denial_tail(tier: str | None, exceeded: Limit | None, retry_after_s: int | None) -> bytes:
    """What follows the statuses of a denial: headers and body for the client."""
    headers = _header(3, "content-type", "application/json")
    if retry_after_s is not None:
        headers += _header(3, "retry-after", str(retry_after_s))
    return headers + bytes_field(5, _body(tier, exceeded, retry_after_s))


def whole_seconds(duration_us: int) -> int:
    """Microseconds to seconds, rounded up."""
    return -(-duration_us // 1_000_000)


def _header(field: int, key: str, value: str) -> bytes:
    return bytes_field(field, text_field(1, key) + text_field(2, value))


def _body(tier: str | None, exceeded: Limit | None, retry_after_s: int | None) -> bytes:
    body: dict[str, str | int] = {"error": "rate_limited"}
    if exceeded is None:
        body["message"] = "The rate limit cannot be checked at the moment."
    else:
        body["message"] = (
            f"The limit of {exceeded} never has room for this request."
            if retry_after_s is None
            else f"The limit of {exceeded} is used up. Try again in {retry_after_s} s."
        )
    if tier is not None:
        body["tier"] = tier
    if exceeded is not None:
        body["limit"] = str(exceeded)
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    return json.dumps(body).encode()
