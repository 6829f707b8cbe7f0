"""A connection has its turn of the event loop, and then the others have theirs."""

from pathlib import Path

import pytest

from extauth.rls.protobuf import bytes_field, varint
from extauth.transport.engine import ConnectionLimits
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from tests.support.codes import OK
from tests.support.h2_bodies import gzipped
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call, serving


def swollen(size: int) -> bytes:
    """A call whose message is small while it is compressed."""
    body = gzipped(MESSAGE + b"\x4a" + varint(size) + b"z" * size)
    head = block(PATH, ("grpc-encoding", "gzip"))
    return frame(HEADERS, END_HEADERS, 1, head) + frame(
        DATA, END_STREAM, 1, b"\x01" + len(body).to_bytes(4, "big") + body
    )


@pytest.mark.parametrize(
    "costly",
    [
        # 409 bytes that stand for a megabyte of headers.
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\xbe" * 255),
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x82" * 16_000),
        swollen(4_000_000),
    ],
    ids=["table", "fields", "gzip"],
)
async def test_a_turn_ends_by_what_a_client_makes_of_its_bytes_too(short_path: Path, costly: bytes) -> None:
    """Behind ten such calls in one read, another connection's call is answered before the last of them is read."""
    table = frame(HEADERS, END_HEADERS | END_STREAM, 1, block("/x") + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
    async with serving(short_path) as served:
        hostile, honest = await served.connect(), await served.connect()
        honest.send(call(1))
        await honest.answered(1)
        many = [costly.replace(b"\x00\x00\x00\x01", s.to_bytes(4, "big"), 2) for s in range(3, 23, 2)]
        hostile.send(table, *many, frame(frames.PING, 0, 0, b"the last"))
        honest.send(call(3))
        assert (await honest.answered(3))[0].code == OK
        assert len(served.tripped) + served.counters.calls < 2 + len(many)
        await hostile.until(lambda: hostile.pings)
        assert len(served.tripped) + served.counters.calls == 2 + len(many)


async def test_a_turn_ends_by_what_its_calls_take_to_plan(short_path: Path) -> None:
    """Behind calls of a hundred new descriptors in one read, another connection's is answered before the last."""

    def wide(stream: int) -> bytes:
        pairs = (bytes_field(1, b"n") + bytes_field(2, b"%d-%d" % (stream, i)) for i in range(100))
        descriptors = (bytes_field(2, bytes_field(1, pair)) for pair in pairs)
        return call(stream, bytes_field(1, b"api") + b"".join(descriptors))

    async with serving(short_path) as served:
        hostile, honest = await served.connect(), await served.connect()
        for peer in (hostile, honest):
            peer.send(call(1))
            await peer.answered(1)
        streams = range(3, 83, 2)
        many = b"".join(map(wide, streams))
        assert len(many) < ConnectionLimits().max_turn_bytes
        hostile.send(many)
        honest.send(call(3))
        assert (await honest.answered(3))[0].code == OK
        planned_us = served.planner.work.us
        await hostile.answered(*streams)
        assert planned_us < served.planner.work.us


async def test_the_turn_that_follows_joins_the_batch(short_path: Path) -> None:
    """What was read at once is decided together, as far as two turns take it."""
    async with serving(short_path, ConnectionLimits(max_turn_frames=2)) as served:
        peer = await served.connect()
        await peer.until(lambda: peer.settings_acks)
        served.counters.open.clear()
        peer.send(*(call(stream) for stream in range(1, 13, 2)))
        await served.asked()
        assert served.counters.calls == 4
