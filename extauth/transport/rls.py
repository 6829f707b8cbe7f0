"""The messages of envoy.service.ratelimit.v3: bytes to Request, and what was settled to bytes.

Both are written here by hand. Reading, because Envoy copies header bytes into descriptors as they are: a decoder that
insists on UTF-8 would fail the call of whoever sends an API key with a stray byte, and where Envoy lets failed calls
through, that caller would have no limit. Writing, because a general library costs ten times as much as the decision.
"""

import json

from extauth.errors import InvalidRequestError
from extauth.limiter.request import Descriptor, Entry, Request
from extauth.limiter.verdict import Code, DescriptorStatus, Verdict
from extauth.rules.model import Limit
from extauth.transport.protobuf import as_bytes, as_text, bytes_field, fields, number_field, text_field

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
TIER_HEADER = "x-ratelimit-tier"
MAX_DESCRIPTORS = 100
MAX_ENTRIES = 100

_DOMAIN, _DESCRIPTORS = b"\x0a\x12"  # tags: RateLimitRequest's fields 1 and 2


def split_request(message: bytes) -> Request:
    """Read a `RateLimitRequest` but for what stands in its descriptors; raises InvalidRequestError.

    Unknown fields are skipped; of a field that comes twice, the last counts.
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
        elif message[at] == _DOMAIN:
            domain = message[at + 2 : end]
        else:
            break
        at = end
    if at < size:
        for number, value in fields(message[at:]):
            if number == 1:
                domain = as_bytes(value)
            elif number == 2:
                descriptors.append(as_bytes(value))
            elif number == 3 and isinstance(value, int):
                hits_addend = value & 0xFFFFFFFF
    if len(descriptors) > MAX_DESCRIPTORS:
        raise InvalidRequestError(f"{len(descriptors)} descriptors in a request; at most {MAX_DESCRIPTORS} are allowed")
    return Request(domain.decode("utf-8", "surrogateescape"), descriptors, hits_addend or 1)


def decode_descriptor(message: bytes) -> Descriptor:
    """Read a `RateLimitDescriptor`; raises InvalidRequestError."""
    entries = []
    for number, value in fields(message):
        if number == 1:
            entry = {1: "", 2: ""}
            entry.update((n, as_text(v)) for n, v in fields(as_bytes(value)) if n in entry)
            entries.append(Entry(entry[1], entry[2]))
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequestError(f"{len(entries)} entries in a descriptor; at most {MAX_ENTRIES} are allowed")
    return tuple(entries)


def encode_response(verdict: Verdict) -> bytes:
    """Write a `RateLimitResponse`.

    Durations are whole seconds, rounded up: Envoy truncates, and no client must be told to come too early. On
    OVER_LIMIT, Envoy sends `raw_body` and the headers to the client; on OK, the tier's header goes upstream.
    """
    head = number_field(1, verdict.code) + b"".join(map(encode_status, verdict.statuses))
    if verdict.code is Code.OK:
        return head + admission_tail(verdict.tier)
    retry_after_s = None if verdict.retry_after_us is None else whole_seconds(verdict.retry_after_us)
    return head + denial_tail(verdict.tier, verdict.exceeded, retry_after_s)


def encode_status(status: DescriptorStatus) -> bytes:
    """One of the response's `statuses`."""
    head = number_field(1, status.code)
    if status.limit is None:
        return bytes_field(2, head)
    duration = number_field(1, whole_seconds(status.reset_us))
    rest = number_field(3, status.remaining) + bytes_field(4, duration)
    return bytes_field(2, head + encode_limit(status.limit) + rest)


def encode_limit(limit: Limit) -> bytes:
    """A status's `current_limit`."""
    message = number_field(1, limit.requests_per_unit) + number_field(2, limit.unit.number)
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
        then = "A request of this size never fits." if retry_after_s is None else f"Try again in {retry_after_s} s."
        body["message"] = f"The limit of {exceeded} is used up. {then}"
    if tier is not None:
        body["tier"] = tier
    if exceeded is not None:
        body["limit"] = str(exceeded)
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    return json.dumps(body).encode()
