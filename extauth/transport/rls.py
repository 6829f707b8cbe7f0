"""The messages of envoy.service.ratelimit.v3: bytes to Request, Verdict to bytes.

Requests are read by hand, not by a protobuf library, for one reason of safety: Envoy copies header bytes into
descriptors as they are, and a decoder that insists on UTF-8 would fail the call of whoever sends an API key with a
stray byte. Where Envoy lets failed calls through, that caller would have no limit.
"""

import json
from collections.abc import Iterator
from datetime import timedelta

from envoy_data_plane.envoy.config.core.v3 import HeaderValue
from envoy_data_plane.envoy.service.ratelimit.v3 import (
    RateLimitResponse,
    RateLimitResponseCode,
    RateLimitResponseDescriptorStatus,
    RateLimitResponseRateLimit,
    RateLimitResponseRateLimitUnit,
)

from extauth.errors import InvalidRequestError
from extauth.limiter.request import Descriptor, Entry, Request
from extauth.limiter.verdict import Code, DescriptorStatus, Verdict

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
TIER_HEADER = "x-ratelimit-tier"
MAX_DESCRIPTORS = 100
MAX_ENTRIES = 100

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types, protobuf.dev/programming-guides/encoding


def decode_request(message: bytes) -> Request:
    """Read a `RateLimitRequest`; raises InvalidRequestError.

    Unknown fields are skipped; of a field that comes twice, the last counts.
    """
    domain = ""
    hits_addend = 0
    descriptors: list[Descriptor] = []
    for number, value in _fields(message):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            descriptors.append(_descriptor(_bytes(value)))
        elif number == 3 and isinstance(value, int):
            hits_addend = value & 0xFFFFFFFF
    if len(descriptors) > MAX_DESCRIPTORS:
        raise InvalidRequestError(f"{len(descriptors)} descriptors in a request; at most {MAX_DESCRIPTORS} are allowed")
    return Request(domain, tuple(descriptors), hits_addend or 1)


def _descriptor(message: bytes) -> Descriptor:
    entries = []
    for number, value in _fields(message):
        if number == 1:
            entry = {1: "", 2: ""}
            entry.update((n, _text(v)) for n, v in _fields(_bytes(value)) if n in entry)
            entries.append(Entry(entry[1], entry[2]))
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequestError(f"{len(entries)} entries in a descriptor; at most {MAX_ENTRIES} are allowed")
    return tuple(entries)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) of each field: an int for a varint, bytes for the length-delimited and fixed-size ones."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise InvalidRequestError("malformed message: a field numbered 0")
        value: int | bytes
        if wire_type == _VARINT:
            value, at = _varint(message, at)
        elif wire_type in (_LENGTH, _FIXED64, _FIXED32):
            length, at = _varint(message, at) if wire_type == _LENGTH else (8 if wire_type == _FIXED64 else 4, at)
            value = message[at : at + length]
            if len(value) < length:
                raise InvalidRequestError("malformed message: it ends inside a field")
            at += length
        else:
            raise InvalidRequestError(f"malformed message: wire type {wire_type}")
        yield number, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
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


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise InvalidRequestError("malformed message: a number where a string or message belongs")


def _text(value: int | bytes) -> str:
    return _bytes(value).decode("utf-8", "surrogateescape")


def encode_response(verdict: Verdict) -> bytes:
    """Write a `RateLimitResponse`.

    Durations are whole seconds, rounded up: Envoy truncates, and no client must be told to come too early. On
    OVER_LIMIT, Envoy sends `raw_body` and the headers to the client; on OK, the tier's header goes upstream.
    """
    response = RateLimitResponse(
        overall_code=RateLimitResponseCode(verdict.code), statuses=[_status(status) for status in verdict.statuses]
    )
    if verdict.code is Code.OVER_LIMIT:
        response.raw_body = _body(verdict)
        response.response_headers_to_add = [HeaderValue(key="content-type", value="application/json")]
        if verdict.retry_after_us is not None:
            seconds = str(_whole_seconds(verdict.retry_after_us))
            response.response_headers_to_add.append(HeaderValue(key="retry-after", value=seconds))
    elif verdict.tier is not None:
        response.request_headers_to_add = [HeaderValue(key=TIER_HEADER, value=verdict.tier)]
    return bytes(response)


def _status(status: DescriptorStatus) -> RateLimitResponseDescriptorStatus:
    code = RateLimitResponseCode(status.code)
    if status.limit is None:
        return RateLimitResponseDescriptorStatus(code=code)
    return RateLimitResponseDescriptorStatus(
        code=code,
        current_limit=RateLimitResponseRateLimit(
            name=status.limit.name,
            requests_per_unit=status.limit.requests_per_unit,
            unit=RateLimitResponseRateLimitUnit(status.limit.unit.number),
        ),
        limit_remaining=status.remaining,
        duration_until_reset=timedelta(seconds=_whole_seconds(status.reset_us)),
    )


def _body(verdict: Verdict) -> bytes:
    body: dict[str, str | int] = {"error": "rate_limited"}
    if verdict.exceeded is None:
        body["message"] = "The rate limit cannot be checked at the moment."
    else:
        wait = verdict.retry_after_us
        then = "A request of this size never fits." if wait is None else f"Try again in {_whole_seconds(wait)} s."
        body["message"] = f"The limit of {verdict.exceeded} is used up. {then}"
    if verdict.tier is not None:
        body["tier"] = verdict.tier
    if verdict.exceeded is not None:
        body["limit"] = str(verdict.exceeded)
    if verdict.retry_after_us is not None:
        body["retry_after_s"] = _whole_seconds(verdict.retry_after_us)
    return json.dumps(body).encode()


def _whole_seconds(duration_us: int) -> int:
    return -(-duration_us // 1_000_000)
