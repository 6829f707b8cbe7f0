"""Header blocks against jh2's own decoder, and connections against any bytes."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jh2.hpack import Decoder, Encoder

from extauth.transport.batching import Batcher
from extauth.transport.engine import ConnectionLimits, EngineContext
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import H2Error, frame
from extauth.transport.h2.hpack import HeaderDecoder
from extauth.transport.h2.protocol import H2Protocol
from extauth.transport.h2.request_head import read_head
from extauth.transport.h2.server_state import ServerState
from tests.support.h2_peer import BLOCK, CONFIG, MESSAGE, PATH, START, block, call
from tests.support.service import decider_of

USUAL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "ratelimit"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
names = st.sampled_from(["x-request-id", "traceparent", "grpc-timeout", "content-length", "grpc-encoding", "te", "x"])
values = st.sampled_from(["", "1", "5S", "gzip", "trailers", "a" * 300]) | st.text("abc-019~\\{", max_size=12)
header_lists = st.lists(st.tuples(names, values), max_size=4).map(lambda extra: USUAL + extra)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(header_lists, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=12))
def test_blocks_mean_what_was_encoded(blocks: list[tuple[list[tuple[str, str]], bool, int | None]]) -> None:
    """With repeats, Huffman coding or not, and tables that shrink and grow."""
    encoder: Any = Encoder()
    decoder = HeaderDecoder(65_536, lambda _guard: None)
    for fields, huffman, table_size in blocks:
        if table_size is not None:
            encoder.header_table_size = table_size
        encoded = [(name.encode(), value.encode(), False) for name, value in fields]
        assert decoder.decode(encoder.encode(encoded, huffman)) == read_head(encoded)


def test_each_byte_has_its_huffman_code() -> None:
    for byte in range(256):
        fields = [(b"x", bytes((byte,)) * 3, False)]
        decoder = HeaderDecoder(65_536, lambda _guard: None)
        assert decoder.decode(cast(Any, Encoder()).encode(fields, True)) == read_head(fields), byte


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
@example([b"\x82\xc0\x82"])
@example([b"\x00\x01a\x82\x1c\x64"])
def test_any_block_is_decoded_as_jh2_does_or_refused(blocks: list[bytes]) -> None:
    decoder, plain = HeaderDecoder(65_536, lambda _guard: None), Decoder()
    for encoded in blocks:
        try:
            head = decoder.decode(encoded)
        except H2Error:
            return
        assert head == read_head(cast(Any, [(*field[:2], False) for field in plain.decode(encoded, True)]))


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.ended

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True


async def talk(pieces: list[bytes]) -> tuple[bytes, bool]:
    """What a fresh connection writes when it is sent these pieces, and whether it ended."""
    decider = decider_of(CONFIG)
    context = EngineContext(
        planner=decider.planner, batcher=Batcher(decider), limits=ConnectionLimits(max_message_bytes=1024)
    )
    wire = Wire()
    connection = H2Protocol(ServerState(context), set())
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
    for _ in range(5):
        await asyncio.sleep(0)
    connection.check(1e12)
    connection.connection_lost(None)
    return wire.written, wire.ended


def run(pieces: list[bytes]) -> tuple[bytes, bool]:
    """As `talk`; an error of ours fails the test."""
    errors: list[dict[str, Any]] = []

    async def talked() -> tuple[bytes, bool]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        return await talk(pieces)

    result = asyncio.run(talked())
    assert not errors
    return result


numbers = st.sampled_from([0, 1, 1, 3, 5, 7, 2, 2**31 - 1])
payloads = st.sampled_from(
    [b"", bytes(4), bytes(5), bytes(8), BLOCK, block("/x"), BLOCK[:20], b"\x00\x00\x00\x00\x22" + MESSAGE]
) | st.binary(max_size=20)
any_frame = st.builds(frame, st.integers(0, 10), st.integers(0, 255), numbers, payloads)
whole_calls = st.builds(call, numbers, st.sampled_from([MESSAGE, b"\xff", b""]), st.sampled_from([BLOCK, block("/x")]))
some_settings = st.builds(lambda name, value: frames.settings({name: value}), st.integers(1, 6), st.integers(0, 70_000))
sent = st.lists(any_frame | whole_calls | some_settings, max_size=12).map(lambda parts: START + b"".join(parts))


@pytest.mark.filterwarnings("default")
@settings(max_examples=400, deadline=None)
@given(sent, st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=3))
def test_no_bytes_break_a_connection(data: bytes, edits: list[tuple[int, int]]) -> None:
    mutable = bytearray(data)
    for place, byte in edits:
        mutable[place % len(mutable)] = byte
    written, _ = run([bytes(mutable)])
    at = 0
    while at < len(written):  # whole frames
        high, low, _, _, _ = frames.HEAD.unpack_from(written, at)
        at += 9 + (high << 8 | low)
    assert at == len(written)


def cut(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """The data in pieces."""
    places = st.lists(st.integers(0, len(data)), max_size=5).map(sorted)
    return places.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)])


@settings(max_examples=300, deadline=None)
@given(sent.flatmap(cut))
def test_pieces_change_nothing_but_the_order_of_answers(pieces: list[bytes]) -> None:
    whole, in_pieces = run([b"".join(pieces)]), run(pieces)
    assert in_pieces[1] == whole[1]
    assert sorted(split(in_pieces[0])) == sorted(split(whole[0]))


def split(written: bytes) -> list[bytes]:
    """The frames, but for grants of the window, which may come together."""
    found, at = [], 0
    while at < len(written):
        high, low, kind, _, _ = frames.HEAD.unpack_from(written, at)
        end = at + 9 + (high << 8 | low)
        if kind != frames.WINDOW_UPDATE:
            found.append(written[at:end])
        at = end
    return found
