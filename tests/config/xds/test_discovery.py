"""The messages of the protocol, beside protobuf's own library."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.config.sources.discovery import (
    TYPE,
    Resource,
    decode_response,
    encode_node,
    encode_request,
    encode_response,
)
from extauth.errors import InvalidRequestError
from tests.support.xds_messages import request, response

TEXT = st.text(max_size=200)
BYTES = st.binary(max_size=300)


@given(TEXT, st.text(min_size=1, max_size=200), st.lists(BYTES, max_size=5))
def test_a_response_is_read_as_it_was_written(version: str, nonce: str, resources: list[bytes]) -> None:
    read = decode_response(response(version, *resources, nonce=nonce))
    assert (read.version, read.nonce, read.type_url) == (version.encode(), nonce.encode(), TYPE)
    assert read.resources == tuple(Resource(TYPE, value) for value in resources)


@given(st.lists(BYTES, max_size=5))
def test_what_the_cache_keeps_is_a_response(resources: list[bytes]) -> None:
    assert decode_response(encode_response(resources)).resources == tuple(Resource(TYPE, each) for each in resources)


@given(TEXT, st.dictionaries(TEXT, TEXT, max_size=3), TEXT, TEXT, st.none() | st.tuples(st.integers(1, 16), TEXT))
def test_a_request_is_written_as_it_is_read(
    name: str, metadata: dict[str, str], version: str, nonce: str, refusal: tuple[int, str] | None
) -> None:
    node = encode_node(name, metadata)
    written = request(encode_request(node, version=version.encode(), nonce=nonce.encode(), refusal=refusal))
    assert (written.node.id, dict(written.node.metadata)) == (name, metadata)
    assert (written.version_info, written.response_nonce, written.type_url) == (version, nonce, TYPE)
    assert written.HasField("error_detail") is (refusal is not None)
    if refusal is not None:
        assert (written.error_detail.code, written.error_detail.message) == refusal


@given(BYTES)
def test_any_bytes_are_a_response_or_refused(message: bytes) -> None:
    with suppress(InvalidRequestError):
        decode_response(message)


WHOLE = response("1", b"resource", nonce="n")


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_a_response_that_is_cut_off_is_never_read_as_the_whole_one(length: int) -> None:
    try:
        read = decode_response(WHOLE[:length])
    except InvalidRequestError:
        return
    assert read != decode_response(WHOLE)
