"""The RateLimitService messages."""

import json

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse, RateLimitResponseRateLimitUnit

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import read_varint, varint
from extauth.rls.request import Descriptor, Entry, Override, decode_descriptor, split_request
from extauth.rls.response import (
    Code,
    DenyingLimit,
    DescriptorStatus,
    Verdict,
    code_of,
    encode_response,
    too_large_response,
)
from extauth.rules.model import Limit, Unit


def decode(message: bytes) -> tuple[str, tuple[tuple[Entry, ...], ...], int]:
    """A whole request, as far as entries."""
    request = split_request(message)
    return request.domain, tuple(decode_descriptor(d).entries for d in request.descriptors), request.hits_addend


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of at most 127 bytes."""
    return bytes((number << 3 | 2, len(payload))) + payload


ENTRY = field(1, b"k") + field(2, b"v")
REQUEST = ("d", ((Entry("k", "v"),),), 1)


@pytest.mark.parametrize(
    ("message", "request_"),
    [
        (field(1, b"d") + field(2, field(1, ENTRY)), REQUEST),
        (field(2, field(1, ENTRY)) + field(1, b"x") + field(1, b"d"), REQUEST),
        (field(1, b"d") + field(2, field(1, ENTRY)) + b"\x18\x00", REQUEST),
        (field(1, b"d") + b"\x18\x83\x01", ("d", (), 131)),
        (field(1, b"d") + b"\x18\x85\x80\x80\x80\x10", ("d", (), 5)),
        (field(1, b"d") + b"\x18\xff\xff\xff\xff\x0f", ("d", (), 2**32 - 1)),
        (b"", ("", (), 1)),
        (field(2, b""), ("", ((),), 1)),
        (field(2, field(1, b"")), ("", ((Entry("", ""),),), 1)),
        (field(2, field(1, field(2, b"a\xff"))), ("", ((Entry("", "a\udcff"),),), 1)),
        (
            field(2, field(1, ENTRY) + field(1, field(3, b"x") + b"\x20\x01") + b"\x20\x01"),
            ("", ((Entry("k", "v"), Entry("", "")),), 1),
        ),
        # What begins like the usual single entry, and is not.
        (field(2, field(1, field(2, b"x") + field(2, b"v"))), ("", ((Entry("", "v"),),), 1)),
        (field(2, field(1, field(1, b"k\x04") + field(2, b"v") + field(3, b"x"))), ("", ((Entry("k\x04", "v"),),), 1)),
        (b"\x21........" + b"\x25...." + field(9, b"x") + field(1, b"d"), ("d", (), 1)),
        # Fields of another wire type than theirs are unknown ones.
        (b"\x09dddddddd" + b"\x15\x0a\x02\x0a\x00" + b"\x1d\x09\0\0\0" + field(1, b"d"), ("d", (), 1)),
    ],
)
def test_decode(message: bytes, request_: object) -> None:
    assert decode(message) == request_


@pytest.mark.parametrize(
    ("message", "descriptor"),
    [
        (field(2, b"\x08\x05\x10\x02"), Descriptor((), Override(5, Unit.MINUTE))),
        (field(2, b"\x10\x07"), Descriptor((), Override(0, Unit.WEEK))),
        (field(2, b"\x08\x05") + field(2, b"\x10\x06"), Descriptor((), Override(5, Unit.YEAR))),
        (field(3, b""), Descriptor((), None, 0)),
        (field(3, b"\x08\x80\x01"), Descriptor((), None, 128)),
        (b"\x20\x01", Descriptor((), None, None, True)),
        (b"\x20\x01\x20\x00", Descriptor((), None, None, False)),
    ],
)
def test_decode_what_a_descriptor_says_besides(message: bytes, descriptor: Descriptor) -> None:
    assert decode_descriptor(message) == descriptor


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (field(2, field(2, b"\x10\x09")), "unknown unit 9 in a descriptor's limit; the units are 1 \\(second\\), 2"),
        (field(2, field(2, b"\x08\x01")), "unknown unit 0 in a descriptor's limit"),
        (b"\x0a", "it ends inside a number"),
        (b"\x0a\x05d", "it ends inside a field"),
        (b"\x18", "it ends inside a number"),
        (b"\x18\x80", "it ends inside a number"),
        (b"\x18" + b"\x80" * 10 + b"\x01", "a number longer than 10 bytes"),
        (b"\x21...", "it ends inside a field"),
        (b"\x02\x00", "a field numbered 0"),
        (b"\x0e", "wire type 6"),
        (b"\x0c", "wire type 4"),
        (b"\x0b\x14", "wire type 4"),
        (b"\x0b\x08\x01", "it ends inside a group"),
        (b"\x0b" * 101 + b"\x0c" * 101, "wire type 3"),
        (b"\x80\x80\x80\x80\x10\x01", "a field numbered 536870912"),
        (field(2, b"\x0a\x7f"), "it ends inside a field"),
        (field(2, b"") * 101, "more than 100 descriptors in a request"),
        (b"\x12\x82\x01" + b"\x0a\x80" + field(1, b"k") + field(2, b"v" * 123), "it ends inside a field"),
        (b"\x12\xca\x01" + field(1, b"") * 101, "more than 100 entries in a descriptor"),
    ],
)
def test_decode_refuses(message: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        decode(message)


def test_an_admission() -> None:
    limit = Limit(10, Unit.WEEK, name="free")
    statuses = (DescriptorStatus(Code.OK, limit, 9, 5_000_001), DescriptorStatus(Code.OK))
    response = RateLimitResponse.parse(encode_response(Verdict(Code.OK, statuses, "free")))
    assert int(response.overall_code) == Code.OK
    first, second = response.statuses
    assert first.current_limit is not None
    assert first.current_limit.name == "free"
    assert first.current_limit.requests_per_unit == 10
    assert first.current_limit.unit is RateLimitResponseRateLimitUnit.WEEK
    assert first.limit_remaining == 9
    assert first.duration_until_reset is not None
    assert first.duration_until_reset.total_seconds() == 6, "rounded up"
    assert second.current_limit is None
    assert [(h.key, h.value) for h in response.request_headers_to_add] == [("x-ratelimit-tier", "free")]
    assert response.response_headers_to_add == []
    assert response.raw_body == b""


@pytest.mark.parametrize(
    ("verdict", "headers", "body"),
    [
        (
            Verdict(Code.OVER_LIMIT, (), "free", DenyingLimit(Limit(10, Unit.MINUTE), 5_000_001, 60_000_000)),
            {"content-type": "application/json", "retry-after": "6"},
            {
                "error": "rate_limited",
                "message": "The limit of 10 per minute is used up. Try again in 6 s.",
                "tier": "free",
                "limit": "10 per minute",
                "retry_after_s": 6,
            },
        ),
        (
            Verdict(Code.OVER_LIMIT, (), None, DenyingLimit(Limit(10, Unit.MINUTE), None, 60_000_000)),
            {"content-type": "application/json"},
            {
                "error": "rate_limited",
                "message": "The limit of 10 per minute never has room for this request.",
                "limit": "10 per minute",
            },
        ),
        (
            Verdict(Code.OVER_LIMIT, ()),
            {"content-type": "application/json"},
            {"error": "rate_limited", "message": "The rate limit cannot be checked at the moment."},
        ),
    ],
)
def test_a_denial(verdict: Verdict, headers: dict[str, str], body: dict[str, str | int]) -> None:
    response = RateLimitResponse.parse(encode_response(verdict))
    assert int(response.overall_code) == Code.OVER_LIMIT
    assert {h.key: h.value for h in response.response_headers_to_add} == headers
    assert json.loads(response.raw_body) == body
    assert response.request_headers_to_add == []


@pytest.mark.parametrize("size", range(1, 11))
def test_a_varint_holds_seven_bits_a_byte(size: int) -> None:
    smallest, largest = (1 << 7 * (size - 1)) & ~1, min((1 << 7 * size), 2**64) - 1
    for number in (smallest, smallest + 1, largest):
        assert len(varint(number)) == size
        assert read_varint(b"x" + varint(number) + b"x", 1) == (number, 1 + size)


def test_what_is_too_large_is_over_the_limit_and_says_so() -> None:
    response = RateLimitResponse.parse(too_large_response())
    assert (int(response.overall_code), response.statuses) == (int(Code.OVER_LIMIT), [])
    assert [(header.key, header.value) for header in response.response_headers_to_add] == [
        ("content-type", "application/json")
    ]
    assert json.loads(response.raw_body) == {
        "error": "rate_limited",
        "message": "The request is too large for its rate limit to be checked.",
    }


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (encode_response(Verdict(Code.OK, ())), Code.OK),
        (encode_response(Verdict(Code.OVER_LIMIT, ())), Code.OVER_LIMIT),
        (too_large_response(), Code.OVER_LIMIT),
    ],
)
def test_the_code_of_an_answer_is_read_back_from_it(message: bytes, code: Code) -> None:
    assert code_of(message) is code
