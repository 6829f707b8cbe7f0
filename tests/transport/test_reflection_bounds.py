"""Reflection on the h2 engine, byte by byte: the streams of its calls, and what bounds them."""

import asyncio
from pathlib import Path

import pytest

from extauth.rls.protobuf import bytes_field
from extauth.rls.request import SERVICE
from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import Status, literal, prefixed
from extauth.transport.reflection import MAX_HELD_BYTES, SERVICES, respond
from tests.support.h2_peer import Answer, Peer, block, call, serving

BLOCK = block(f"/{SERVICES[0]}/ServerReflectionInfo")
LIST = bytes_field(7, b"*")
DESCRIBE = bytes_field(4, SERVICE.encode())
LISTED, DESCRIBED = prefixed(respond(LIST)), prefixed(respond(DESCRIBE))
SHUT = frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0})


def begun(stream: int = 1) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, BLOCK)


def data(*messages: bytes, end: bool = False, stream: int = 1) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, b"".join(map(prefixed, messages)))


def window(*streams: int, size: int = 1_000_000) -> bytes:
    return b"".join(frames.window_update(stream, size) for stream in streams)


async def until_body(peer: Peer, body: bytes, stream: int = 1) -> None:
    await peer.until(lambda: len(peer.answers.get(stream, Answer()).body) >= len(body))
    assert peer.answers[stream].body == body


@pytest.mark.parametrize("end", ["data", "empty data", "trailers"])
async def test_each_message_is_answered_and_the_end_is_ok(short_path: Path, end: str) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(window(0), begun(), data(LIST))
        await until_body(peer, LISTED)
        peer.send(data(LIST, LIST))
        await until_body(peer, LISTED * 3)
        assert not peer.answers[1].ended
        last = {
            "data": data(LIST, end=True),
            "empty data": data(end=True),
            "trailers": frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")),
        }[end]
        peer.send(last)
        (answer,) = await peer.answered(1)
        assert answer.body == LISTED * (4 if end == "data" else 3)
        assert (answer.headers[":status"], answer.trailers) == ("200", {"grpc-status": "0"})
        peer.send(call(3))
        assert (await peer.answered(3))[0].status == 0, "the connection goes on"
        assert served.tripped == []


async def test_a_message_may_come_in_any_pieces(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        bytes_ = prefixed(LIST) * 3
        peer.send(begun(), *(frame(DATA, 0, 1, bytes_[i : i + 1]) for i in range(len(bytes_))))
        await until_body(peer, LISTED * 3)


async def test_a_call_that_ends_inside_a_message(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(begun(), data(LIST), frame(DATA, END_STREAM, 1, prefixed(LIST)[:-1]))
        (answer,) = await peer.answered(1)
        assert (answer.body, answer.status) == (LISTED, Status.INTERNAL)
        assert ":status" not in answer.trailers


async def test_what_the_window_has_no_room_for_is_sent_later_and_then_the_end(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(SHUT, window(0), begun(), data(DESCRIBE), data(LIST, end=True))
        await peer.until(lambda: peer.answers.get(1, Answer()).headers)
        peer.send(call(3), window(3))
        assert (await peer.answered(3))[0].status == 0, "others do not wait for it"
        peer.send(window(1, size=10_000))
        await until_body(peer, DESCRIBED[:10_000])
        peer.send(window(1))
        (answer,) = await peer.answered(1)
        assert (answer.body, answer.trailers) == (DESCRIBED + LISTED, {"grpc-status": "0"})


async def test_a_client_that_reads_no_answers_gets_no_more(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        fit = MAX_HELD_BYTES // len(DESCRIBED) + 1
        peer.send(SHUT, window(0), begun(), *[data(DESCRIBE)] * fit, data(LIST))
        (answer,) = await peer.answered(1)
        assert (answer.status, answer.body) == (Status.RESOURCE_EXHAUSTED, b"")
        peer.send(begun(3), *[data(DESCRIBE, stream=3)] * fit, window(3))
        await until_body(peer, DESCRIBED * fit, 3)


async def test_answers_that_wait_for_their_client_are_given_up(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(stall_timeout_s=0.1)) as served:
        peer = await served.connect()
        peer.send(SHUT, begun(), data(LIST, end=True))
        await peer.until(lambda: peer.answers.get(1, Answer()).reset is not None)
        assert served.tripped == [Guard.SLOW_READER]


async def test_calls_hold_memory_until_they_end(short_path: Path) -> None:
    """Past the limit on unfinished messages the newest call ends, and those that go on are answered."""
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=2100)) as served:
        peer = await served.connect()
        peer.send(begun(1), data(LIST), begun(3), data(LIST, stream=3), begun(5), data(LIST, stream=5))
        (answer,) = await peer.answered(5)
        assert answer.status == Status.UNAVAILABLE
        peer.send(data(LIST, end=True), data(LIST, end=True, stream=3))
        assert [answer.status for answer in await peer.answered(1, 3)] == [0, 0]
        peer.send(begun(7), data(LIST, end=True, stream=7))
        assert (await peer.answered(7))[0].status == 0, "those that ended hold nothing"


async def test_a_call_that_is_cancelled_is_over(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_streams=1)) as served:
        peer = await served.connect()
        peer.send(SHUT, begun(), data(LIST), frames.rst_stream(1, ErrorCode.CANCEL), call(3), window(3))
        assert (await peer.answered(3))[0].status == 0


@pytest.mark.parametrize("asked", [b"", data(LIST)])
async def test_an_open_call_does_not_keep_the_server_from_stopping(short_path: Path, asked: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(begun(), asked, call(3))
        await peer.answered(3)
        async with asyncio.timeout(10):
            stopping = asyncio.create_task(served.server.stop(60))
            (answer,) = await peer.answered(1)
            assert answer.status == Status.UNAVAILABLE
            assert ":status" not in answer.trailers
            await peer.gone()
            await stopping


async def test_a_connection_that_ends_by_an_error_answers_no_call_that_it_does_not_name(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(begun(), data(LIST))
        await until_body(peer, LISTED)
        peer.send(frame(frames.PUSH_PROMISE, 0, 1, bytes(4)))
        await peer.gone()
        assert [last for last, _, _ in peer.goaways] == [0]
        assert peer.answers[1].reset == ErrorCode.REFUSED_STREAM
        assert not peer.answers[1].trailers
