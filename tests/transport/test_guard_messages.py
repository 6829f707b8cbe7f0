"""Large messages: those within the limit are decided, the others are denied."""

from pathlib import Path

import pytest

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import prefixed
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_bodies import Sending, gzipped, large
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call, serving


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (BLOCK, prefixed(b"\x0a" * 2000)),
        (BLOCK, b"\x00\x7f\xff\xff\xff"),
        (block("", ("grpc-encoding", "gzip")), b""),
    ],
)
async def test_messages_past_the_bound_are_denied(short_path: Path, head: bytes, body: bytes) -> None:
    if not body:
        head = block(PATH, ("grpc-encoding", "gzip"))
        bomb = gzipped(bytes(10_000_000))[:900]
        body = b"\x01" + len(bomb).to_bytes(4, "big") + bomb
    async with serving(short_path, ConnectionLimits(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, body), call(3))
        assert [answer.code for answer in await peer.answered(1, 3)] == [OVER_LIMIT, OK]
        assert served.tripped == [Guard.MESSAGE]


async def test_a_message_past_the_bound_is_denied_before_it_is_whole(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), frame(DATA, 0, 1, b"\x00\x00\x00\x04\x01"))
        (answer,) = await peer.answered(1)
        await peer.until(lambda: answer.reset is not None)
        assert answer.code == OVER_LIMIT
        assert answer.reset == ErrorCode.NO_ERROR
        peer.send(frame(DATA, END_STREAM, 1, bytes(1025)), call(3))
        assert (await peer.answered(3))[0].status == 0, "what was on its way is ignored"


@pytest.mark.parametrize(
    "message",
    [b"\x12\x00" * 30_000, b"\x12\xe0\xd4\x03" + b"\x0a\x00" * 30_000, b"\x0a\x01d" + b"\x48\x00" * 30_000],
    ids=["descriptors", "entries", "unknown fields"],
)
async def test_a_message_of_very_many_parts_is_denied_at_once(short_path: Path, message: bytes) -> None:
    async with serving(short_path, config="domain: d") as served:
        peer = await served.connect()
        for stream in (1, 3, 5):
            data = prefixed(b"\x0a\x01d" + message if message[:1] == b"\x12" else message)
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK))
            chunks = [data[i : i + 16_384] for i in range(0, len(data), 16_384)]
            peer.send(*(frame(DATA, END_STREAM if c is chunks[-1] else 0, stream, c) for c in chunks))
            (answer,) = await peer.answered(stream)
            assert answer.code == OVER_LIMIT


async def test_a_message_that_swells_is_decided(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        body = gzipped(MESSAGE + b"\x4a\xe0\xd4\x03" + b"z" * 60_000)
        head = block(PATH, ("grpc-encoding", "gzip"))
        data = frame(DATA, END_STREAM, 1, b"\x01" + len(body).to_bytes(4, "big") + body)
        peer.send(frame(HEADERS, END_HEADERS, 1, head), data)
        assert (await peer.answered(1))[0].code == OK
        assert not served.tripped


@pytest.mark.parametrize("size", [65_530, 65_531, 70_000, 1_100_000, 4_194_304])
async def test_large_messages_are_decided(short_path: Path, size: int) -> None:
    async with serving(short_path) as served:
        (answer,) = await Sending(await served.connect(), {1: prefixed(large(size))}).until_answered()
        assert answer.code == OK
        assert not served.tripped
