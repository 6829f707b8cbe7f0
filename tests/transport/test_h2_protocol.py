"""HTTP/2 and gRPC as the h2 engine speaks them; h2spec, where it is installed, checks the rest of RFC 9113."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from extauth.transport.h2 import frames
from extauth.transport.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PRIORITIZED,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.codes import OK
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, START, Answer, block, call, serving

LONG_NAME = f"""
domain: api
descriptors: [{{key: api_key, rate_limit: {{name: {"n" * 30_000}, unit: hour, requests_per_unit: 1000}}}}]
"""


# RFC 7541 §5.2: a Huffman string is padded with the most significant bits of EOS, ones, and with less than 8 of them.
# Here the code of `a` is 00011, and 25 bits are padded with 7.
PADDED_WELL = [
    b"\x00\x01x\x81\x1f",
    b"\x00\x01x\x84\x18\xc6\x31\xff",
    b"\x00\x81\x1f\x01v",
    b"\x00\x01x\x85\x18\xc6\x31\x8c\x63",
]


def grown(answer: Answer, size: int) -> bool:
    """More than `size` bytes have come, or the end."""
    return len(answer.body) > size or answer.ended


async def test_an_answer(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(call(1))
        (answer,) = await peer.answered(1)
        assert answer.headers == {":status": "200", "content-type": "application/grpc"}
        assert answer.trailers == {"grpc-status": "0"}
        assert answer.code == OK
        assert peer.settings_acks == 1


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_bytes_may_come_in_any_pieces(short_path: Path, size: int) -> None:
    sent = START + call(1) + frame(frames.PING, 0, 0, b"12345678") + call(3)
    async with serving(short_path) as served:
        peer = await served.connect(start=False)
        for i in range(0, len(sent), size):
            peer.send(sent[i : i + size])
            await asyncio.sleep(0)
        assert [answer.code for answer in await peer.answered(1, 3)] == [OK, OK]
        assert peer.pings == [(frames.ACK, b"12345678")]


@pytest.mark.parametrize("field", PADDED_WELL)
async def test_huffman_strings_end_in_ones(short_path: Path, field: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        for stream in (1, 3):  # the second from memory
            peer.send(call(stream, head=BLOCK + field))
        assert [answer.code for answer in await peer.answered(1, 3)] == [OK, OK]


async def test_a_message_may_be_split_anywhere(short_path: Path) -> None:
    body = prefixed(MESSAGE)
    async with serving(short_path) as served:
        peer = await served.connect()
        for i in range(len(body) + 1):
            stream = 2 * i + 1
            peer.send(
                frame(HEADERS, END_HEADERS, stream, BLOCK),
                frame(DATA, 0, stream, body[:i]),
                frame(DATA, END_STREAM, stream, body[i:]),
            )
            assert (await peer.answered(stream))[0].code == OK


@pytest.mark.parametrize(
    "sent",
    [
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x03" + BLOCK + bytes(3))
        + frame(DATA, END_STREAM | PADDED, 1, b"\xff" + prefixed(MESSAGE) + bytes(255)),
        frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0\0\x05\x10" + BLOCK)
        + frame(frames.PRIORITY, 0, 3, b"\0\0\0\x01\x10")
        + frame(DATA, END_STREAM, 1, prefixed(MESSAGE)),
        frame(HEADERS, 0, 1, BLOCK[:9])
        + frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:])
        + frame(DATA, END_STREAM, 1, prefixed(MESSAGE)),
        frame(HEADERS, END_HEADERS, 1, BLOCK)
        + frame(DATA, 0, 1, prefixed(MESSAGE))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")),
        frame(HEADERS, END_HEADERS, 1, block(PATH, ("content-length", str(len(MESSAGE) + 5))))
        + frame(DATA, END_STREAM, 1, prefixed(MESSAGE)),
    ],
    ids=["padding", "priority", "continuation", "trailers", "content-length"],
)
async def test_a_call_in_other_forms(short_path: Path, sent: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(sent)
        assert (await peer.answered(1))[0].code == OK


async def test_a_window_of_one_byte(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1}), call(1))
        answer = peer.answers[1] = Answer()
        while not answer.ended:
            await peer.until(partial(grown, answer, len(answer.body)))
            peer.send(frames.window_update(1, 1))
        assert answer.code == OK
        assert {len(payload) for kind, _, _, payload in peer.frames if kind == DATA} == {1}


async def test_the_connections_window_holds_for_all_streams(short_path: Path) -> None:
    async with serving(short_path, config=LONG_NAME) as served:
        peer = await served.connect()
        peer.send(call(1), call(3), call(5))
        assert (await peer.answered(1))[0].code == OK
        await peer.until(lambda: sum(len(answer.body) for answer in peer.answers.values()) == frames.DEFAULT_WINDOW)
        assert not peer.answers[5].ended
        peer.send(frames.window_update(0, 100_000), call(7))
        assert [answer.code for answer in await peer.answered(3, 5, 7)] == [OK] * 3


async def test_answers_are_split_by_the_peers_frame_size(short_path: Path) -> None:
    async with serving(short_path, config=LONG_NAME) as served:
        peer = await served.connect()
        peer.send(call(1))
        await peer.answered(1)
        assert max(len(payload) for kind, _, _, payload in peer.frames if kind == DATA) == 16_384
        peer.send(frames.settings({frames.SETTINGS_MAX_FRAME_SIZE: 20_000}), call(3))
        await peer.answered(3)
        assert max(len(payload) for kind, _, _, payload in peer.frames if kind == DATA) == 20_000


async def test_settings_change_the_windows_of_open_streams(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), frames.window_update(1, 10))
        peer.send(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}))
        served.counters.open.set()
        await peer.until(lambda: len(peer.answers.get(1, Answer()).body) == 10)
        peer.send(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 65_535}))
        assert (await peer.answered(1))[0].code == OK


async def test_a_call_that_is_reset_gets_no_answer(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), call(3))
        await served.asked(2)
        # Frames are handled in order, so that when the ping is answered the stream is reset.
        peer.send(frames.rst_stream(1, ErrorCode.CANCEL), frame(frames.PING, 0, 0, b"12345678"))
        await peer.until(lambda: (frames.ACK, b"12345678") in peer.pings)
        served.counters.open.set()
        peer.send(call(5))
        await peer.answered(3, 5)
        assert set(peer.answers) == {3, 5}


async def test_a_client_that_hangs_up_harms_nobody(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), call(3))
        await served.asked(2)
        await peer.close()
        served.counters.open.set()
        await served.works()
