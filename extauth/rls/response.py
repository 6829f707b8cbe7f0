"""The response: what a call is answered, and its bytes as a `RateLimitResponse`.

The encoder is written by hand because a general library costs ten times as much as the decision.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from extauth.rls.protobuf import bytes_field, number_field, struct, text_field
from extauth.rules.model import Limit

TIER_HEADER = "x-ratelimit-tier"
SOURCE_HEADER = "x-ratelimit-source"
NO_LIMIT_REMAINING = 2**32 - 1


class Code(IntEnum):
    """`RateLimitResponse.Code`."""

    OK = 1
    OVER_LIMIT = 2


class DescriptorStatus(NamedTuple):
    """`RateLimitResponse.DescriptorStatus`: one a descriptor of the request, in its order.

    `limit` is None where no limit applied: Envoy then passes the status over. `reset_us` is the time until the limit
    is whole again.
    """

    code: Code
    limit: Limit | None = None
    remaining: int = 0
    reset_us: int = 0


NO_LIMIT = DescriptorStatus(Code.OK)
UNLIMITED = DescriptorStatus(Code.OK, remaining=NO_LIMIT_REMAINING)


class DenyingLimit(NamedTuple):
    """The limit that a denial is about: the enforced limit with the longest wait, or the quota with the shortest.

    `retry_after_us` is the wait until this call would fit (None: it never would), `reset_us` the time until the limit
    is whole again.
    """

    limit: Limit
    retry_after_us: int | None
    reset_us: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a call.

    `tier` applied (None: no tier did). `denying` is set on OVER_LIMIT, except where the store failed and all
    calls are denied. `metadata` is for the answer's `dynamic_metadata`, where that was asked for, and `log` more of it,
    encoded. `without_store` marks an answer that the store did not decide: by whom it was.
    """

    code: Code
    statuses: tuple[DescriptorStatus, ...]
    tier: str | None = None
    denying: DenyingLimit | None = None
    metadata: Mapping[str, Any] | None = None
    without_store: str | None = None
    log: bytes = b""


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
        message += denial_tail(verdict.tier, *_denying(verdict))
    if headers is not None:
        message += _limit_headers(headers, verdict)
    if verdict.without_store is not None:
        return message + without_store_mark(verdict.without_store, verdict.metadata, verdict.log)
    if verdict.metadata is not None or verdict.log:
        message += dynamic_metadata(struct(verdict.metadata or {}) + verdict.log)
    return message


def code_of(message: bytes) -> Code:
    """The `overall_code` of a message from this module, which writes it first."""
    return Code(message[1])


def dynamic_metadata(fields: bytes) -> bytes:
    """The response's field for the fields of a Struct. In one field: not every reader merges two."""
    return bytes_field(6, fields)


def without_store_mark(source: str | None, metadata: Mapping[str, Any] | None = None, log: bytes = b"") -> bytes:
    """What marks an answer that the store did not decide: a header for the client, and one more entry of `metadata`."""
    if source is None:
        return b""
    return _header(3, SOURCE_HEADER, source) + dynamic_metadata(struct({**(metadata or {}), "source": source}) + log)


def too_large_response() -> bytes:
    """OVER_LIMIT for a call that is too large to be evaluated: no status, for no limit was looked at."""
    body = {"error": "rate_limited", "message": "The request is too large for its rate limit to be checked."}
    headers = _header(3, "content-type", "application/json")
    return number_field(1, Code.OVER_LIMIT) + headers + bytes_field(5, json.dumps(body).encode())


def _denying(verdict: Verdict) -> tuple[Limit | None, int | None]:
    """The limit that a denied caller waits for, and for how many seconds."""
    denying = verdict.denying
    if denying is None:
        return None, None
    wait_us = denying.retry_after_us
    return denying.limit, None if wait_us is None else whole_seconds(wait_us)


def _limit_headers(headers: ResponseHeaders, verdict: Verdict) -> bytes:
    """Of the limit that `retry-after` is about, on a denial; else of one that is over, or has the least left."""
    if verdict.denying is not None:
        limit, _, reset_us = verdict.denying
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


def denial_tail(tier: str | None, denying: Limit | None, retry_after_s: int | None) -> bytes:
    """What follows the statuses of a denial: headers and body for the client."""
    headers = _header(3, "content-type", "application/json")
    if retry_after_s is not None:
        headers += _header(3, "retry-after", str(retry_after_s))
    return headers + bytes_field(5, _body(tier, denying, retry_after_s))


def whole_seconds(duration_us: int) -> int:
    """Microseconds to seconds, rounded up."""
    return -(-duration_us // 1_000_000)


def _header(field: int, key: str, value: str) -> bytes:
    return bytes_field(field, text_field(1, key) + text_field(2, value))


def _body(tier: str | None, denying: Limit | None, retry_after_s: int | None) -> bytes:
    body: dict[str, str | int] = {"error": "rate_limited"}
    if denying is None:
        body["message"] = "The rate limit cannot be checked at the moment."
    else:
        body["message"] = (
            f"The limit of {denying} never has room for this request."
            if retry_after_s is None
            else f"The limit of {denying} is used up. Try again in {retry_after_s} s."
        )
    if tier is not None:
        body["tier"] = tier
    if denying is not None:
        body["limit"] = str(denying)
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    return json.dumps(body).encode()
