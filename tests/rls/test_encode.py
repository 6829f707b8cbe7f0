"""What the encoder of requests writes, the decoder reads."""

from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from hypothesis import given
from hypothesis import strategies as st

from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry, Override, decode_descriptor, split_request
from extauth.rules.model import Unit

numbers = st.integers(0, 2**32 - 1)
text = st.binary(max_size=200).map(lambda value: value.decode("utf-8", "surrogateescape"))
descriptors = st.builds(
    Descriptor,
    st.lists(st.builds(Entry, text, text), max_size=4).map(tuple),
    st.none() | st.builds(Override, numbers, st.sampled_from(Unit)),
    st.none() | numbers,
    st.booleans(),
)


@given(text, st.lists(descriptors, max_size=4), numbers)
def test_what_it_writes_is_read_as_it_was_meant(domain: str, descriptors: list[Descriptor], hits: int) -> None:
    request = split_request(encode_request(domain, descriptors, hits))
    assert request.domain == domain
    assert request.hits_addend == max(hits, 1)
    assert list(map(decode_descriptor, request.descriptors)) == descriptors


def test_hits_that_are_not_given_are_not_written() -> None:
    assert encode_request("d", []) == bytes(RateLimitRequest(domain="d"))
