"""Our reader of requests beside envoy-data-plane's."""

from typing import Any

from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.errors import InvalidRequestError
from extauth.limiter.counter_names import KeyNamer
from extauth.rls.protobuf import bytes_field, varint
from extauth.rls.request import Entry, decode_descriptor, split_request
from fuzz.schema import MESSAGES

text = st.text(max_size=20)
entries = st.lists(st.builds(RateLimitDescriptorEntry, key=text, value=text), max_size=4)
overrides = st.none() | st.builds(
    RateLimitDescriptorRateLimitOverride,
    requests_per_unit=st.integers(0, 2**32 - 1),
    unit=st.sampled_from(list(RateLimitUnit)[1:]),
)
descriptors = st.builds(
    RateLimitDescriptor,
    entries=entries,
    limit=overrides,
    hits_addend=st.none() | st.integers(0, 2**64 - 1),
    is_negative_hits=st.booleans(),
)
requests = st.builds(
    RateLimitRequest,
    domain=text,
    descriptors=st.lists(descriptors, max_size=4),
    hits_addend=st.integers(0, 2**32 - 1),
)


@settings(max_examples=300, deadline=None)
@given(requests)
def test_it_reads_what_envoy_data_plane_writes(request: RateLimitRequest) -> None:
    split = split_request(bytes(request))
    assert (split.domain, split.hits_addend) == (request.domain, request.hits_addend or 1)
    for encoded, told in zip(split.descriptors, request.descriptors, strict=True):
        descriptor = decode_descriptor(encoded)
        assert descriptor.entries == tuple(Entry(e.key, e.value) for e in told.entries)
        assert descriptor.is_negative_hits == told.is_negative_hits
        assert descriptor.hits_addend == told.hits_addend
        limit = told.limit and (told.limit.requests_per_unit, int(told.limit.unit))
        assert (descriptor.limit and (descriptor.limit.requests_per_unit, descriptor.limit.unit.number)) == limit


numbers = st.integers(1, 6) | st.integers(1, 2**29 - 1)
plain_fields = st.one_of(
    st.tuples(numbers, st.integers(0, 2**64 - 1)).map(lambda f: varint(f[0] << 3) + varint(f[1])),
    st.tuples(numbers, st.binary(min_size=8, max_size=8)).map(lambda f: varint(f[0] << 3 | 1) + f[1]),
    st.tuples(numbers, st.binary(min_size=4, max_size=4)).map(lambda f: varint(f[0] << 3 | 5) + f[1]),
)
# Field 2 of a descriptor, a limit of its own, has a unit that must be known.
leaves = plain_fields | st.binary(max_size=9).map(lambda b: bytes_field(7, b))
groups = st.recursive(
    leaves,
    lambda inner: st.tuples(numbers, st.lists(inner, max_size=3)).map(
        lambda g: varint(g[0] << 3 | 3) + b"".join(g[1]) + varint(g[0] << 3 | 4)
    ),
    max_leaves=6,
)


def messages(number: int, inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A message field whose content is made of `inner` and of what nobody knows."""
    return st.lists(inner | groups, max_size=4).map(lambda parts: bytes_field(number, b"".join(parts)))


strings = st.tuples(st.integers(1, 2), st.binary(max_size=9)).map(lambda f: bytes_field(*f))
wild_descriptors = messages(2, messages(1, strings) | messages(3, plain_fields) | plain_fields)
wild_requests = st.lists(
    wild_descriptors | groups | plain_fields | st.binary(max_size=9).map(lambda b: bytes_field(1, b)), max_size=5
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(wild_requests)
def test_what_it_does_not_know_it_skips_as_protobuf_does(message: bytes) -> None:
    expected: Any = MESSAGES["Request"].FromString(message)
    split = split_request(message)
    assert split.domain.encode("utf-8", "surrogateescape") == expected.domain
    assert split.hits_addend == (expected.hits_addend or 1)
    for encoded, told in zip(split.descriptors, expected.descriptors, strict=True):
        descriptor = decode_descriptor(encoded)
        pairs = [
            tuple(part.encode("utf-8", "surrogateescape") for part in (entry.key, entry.value))
            for entry in descriptor.entries
        ]
        assert pairs == [(entry.key, entry.value) for entry in told.entries]
        assert descriptor.is_negative_hits == told.is_negative_hits
        assert descriptor.hits_addend == (told.hits_addend.value if told.HasField("hits_addend") else None)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=80) | requests.flatmap(lambda r: _mutated(bytes(r))))
def test_any_bytes_are_a_request_or_an_invalid_one(message: bytes) -> None:
    try:
        request = split_request(message)
        descriptors = [decode_descriptor(descriptor) for descriptor in request.descriptors]
    except InvalidRequestError:
        return
    assert 1 <= request.hits_addend < 2**32
    for descriptor in descriptors:
        KeyNamer("x")(request.domain, descriptor.entries)


def _mutated(message: bytes) -> st.SearchStrategy[bytes]:
    def mutate(edits: list[tuple[int, int]]) -> bytes:
        mutable = bytearray(message or b"\0")
        for place, byte in edits:
            mutable[place % len(mutable)] = byte
        return bytes(mutable)

    return st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4).map(mutate)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(text, st.lists(st.tuples(text, text), max_size=3).map(tuple)), min_size=2, max_size=6, unique=True
    )
)
def test_two_descriptors_never_share_a_counter(descriptors: list[tuple[str, tuple[tuple[str, str], ...]]]) -> None:
    namer = KeyNamer("x", "s")
    assert len({namer(domain, entries) for domain, entries in descriptors}) == len(descriptors)
