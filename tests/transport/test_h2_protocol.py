"""HTTP/2 and gRPC as the h2 engine speaks them; h2spec, where it is installed, checks the rest of RFC 9113."""

import asyncio
import zlib
from functools import partial
from pathlib import Path

import pytest

from extauth.rls.request import SERVICE
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    PREFACE,
    PRIORITIZED,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import Status, literal, prefixed
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, START, Answer, block, call, serving
from tests.support.programs import program, said

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
MISPADDED = [
    b"\x00\x01x\x81\x18",  # zeros
    b"\x00\x01x\x81\x1e",
    b"\x00\x01x\x81\x1b",
    b"\x00\x81\x18\x01v",  # of a name
    b"\x00\x01x\x82\x1f\xff",  # 11 bits
    b"\x00\x01x\x86\x18\xc6\x31\x8c\x63\xff",  # 8 bits
    b"\x00\x01x\x81\xff",  # nothing but padding
    b"\x00\x01x\x84\xff\xff\xff\xff",  # EOS itself
    b"\x00\x01x\x81\x1f\x00\x01y\x81\x18\x00\x01z\x81\x1f",  # of the second of three fields
]


def code(answer: Answer) -> int:
    """The overall code of an OK answer."""
    return answer.code


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
        assert code(answer) == 1
        assert peer.settings_acks == 1


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_bytes_may_come_in_any_pieces(short_path: Path, size: int) -> None:
    sent = START + call(1) + frame(frames.PING, 0, 0, b"12345678") + call(3)
    async with serving(short_path) as served:
        peer = await served.connect(start=False)
        for i in range(0, len(sent), size):
            peer.send(sent[i : i + size])
            await asyncio.sleep(0)
        assert [code(answer) for answer in await peer.answered(1, 3)] == [1, 1]
        assert peer.pings == [(frames.ACK, b"12345678")]


@pytest.mark.parametrize("field", PADDED_WELL)
async def test_huffman_strings_end_in_ones(short_path: Path, field: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        for stream in (1, 3):  # the second from memory
            peer.send(call(stream, head=BLOCK + field))
        assert [code(answer) for answer in await peer.answered(1, 3)] == [1, 1]


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
            assert code((await peer.answered(stream))[0]) == 1


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
        assert code((await peer.answered(1))[0]) == 1


async def test_a_window_of_one_byte(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1}), call(1))
        answer = peer.answers[1] = Answer()
        while not answer.ended:
            await peer.until(partial(grown, answer, len(answer.body)))
            peer.send(frames.window_update(1, 1))
        assert code(answer) == 1
        assert {len(payload) for kind, _, _, payload in peer.frames if kind == DATA} == {1}


async def test_the_connections_window_holds_for_all_streams(short_path: Path) -> None:
    async with serving(short_path, config=LONG_NAME) as served:
        peer = await served.connect()
        peer.send(call(1), call(3), call(5))
        assert code((await peer.answered(1))[0]) == 1
        await peer.until(lambda: sum(len(answer.body) for answer in peer.answers.values()) == frames.DEFAULT_WINDOW)
        assert not peer.answers[5].ended
        peer.send(frames.window_update(0, 100_000), call(7))
        assert [code(answer) for answer in await peer.answered(3, 5, 7)] == [1] * 3


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
        assert code((await peer.answered(1))[0]) == 1


async def test_a_call_that_is_reset_gets_no_answer(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), call(3))
        async with asyncio.timeout(10):
            while served.counters.calls < 2:
                await asyncio.sleep(0)
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
        async with asyncio.timeout(10):
            while served.counters.calls < 2:
                await asyncio.sleep(0)
        await peer.close()
        served.counters.open.set()
        await served.works()


async def test_going_away_takes_what_comes_until_it_was_heard(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        async with asyncio.timeout(10):
            while not served.counters.calls:
                await asyncio.sleep(0)
        stopping = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: peer.goaways and peer.pings)
        assert peer.goaways == [(MAX_STREAM_ID, ErrorCode.NO_ERROR, "shutting down")]
        (flags, payload) = peer.pings[0]
        assert flags == 0
        peer.send(call(3), frame(frames.PING, frames.ACK, 0, payload), call(5))
        await peer.until(lambda: len(peer.goaways) == 2)
        assert peer.goaways[1][:2] == (3, ErrorCode.NO_ERROR)
        assert (await peer.answered(5))[0].reset == ErrorCode.REFUSED_STREAM
        served.counters.open.set()
        assert [code(answer) for answer in await peer.answered(1, 3)] == [1, 1]
        assert await peer.ended() == (ErrorCode.NO_ERROR, "shutting down")
        await stopping


async def test_idle_connections_go_away_without_delay(short_path: Path) -> None:
    async with serving(short_path) as served:
        peers = [await served.connect() for _ in range(3)] + [await served.connect(start=False)]
        await served.works()
        stopping = asyncio.create_task(served.server.stop(10))
        for peer in peers[:3]:
            await peer.until(partial(len, peer.pings))
            peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]))
            await peer.ended()
        await stopping


async def test_what_comes_with_the_goaways_ping_is_still_read(short_path: Path) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    async with serving(short_path) as served:
        peer = await served.connect()
        await served.works()
        stopping = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: peer.pings)
        peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]), frame(frames.PING, 0, 0, b"12345678"), call(1))
        assert await peer.ended() == (ErrorCode.NO_ERROR, "shutting down")
        assert peer.pings[1:] == [(frames.ACK, b"12345678")]
        assert peer.answers[1].reset == ErrorCode.REFUSED_STREAM
        await stopping
    assert not errors


@pytest.mark.parametrize(
    ("head", "body", "status", "text"),
    [
        (block(f"/{SERVICE}/Other"), MESSAGE, Status.UNIMPLEMENTED, f"no such method: /{SERVICE}/Other"),
        (block("/100%/\xfc"), b"", Status.UNIMPLEMENTED, "no such method: /100%25/%C3%83%C2%BC"),
        (block(PATH, ("grpc-timeout", "99999999H")), MESSAGE, Status.OK, ""),
        (BLOCK, b"\xff", Status.INVALID_ARGUMENT, "malformed message: it ends inside a number"),
        (BLOCK, b"", Status.INVALID_ARGUMENT, "the domain must not be empty"),
    ],
)
async def test_statuses(short_path: Path, head: bytes, body: bytes, status: Status, text: str | None) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        for stream in (1, 3):
            peer.send(call(stream, body, head))
        for answer in await peer.answered(1, 3):
            assert answer.status == status
            assert text in (None, answer.text)
        assert served.counters.calls == (2 if status is Status.OK else 0)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "text"),
    [
        (None, b"", Status.INTERNAL, "a unary call needs one whole message"),
        (None, b"\0\0\0\0", Status.INTERNAL, "a unary call needs one whole message"),
        (None, prefixed(MESSAGE)[:-1], Status.INTERNAL, "a unary call needs one whole message"),
        (None, prefixed(MESSAGE) * 2, Status.INTERNAL, "a unary call needs one whole message"),
        (None, b"\1" + prefixed(MESSAGE)[1:], Status.INTERNAL, "the message is flagged as compressed, without"),
        ("gzip", b"\2" + prefixed(MESSAGE)[1:], Status.INTERNAL, "the message is flagged as compressed, without"),
        ("gzip", b"\1" + prefixed(MESSAGE)[1:], Status.INTERNAL, "the message is not gzip"),
        ("gzip", b"\1" + prefixed(zlib.compress(MESSAGE, wbits=31)[:-3])[1:], Status.INTERNAL, "is cut off"),
        ("gzip", b"\1" + prefixed(zlib.compress(MESSAGE, wbits=31))[1:], Status.OK, ""),
        ("gzip", prefixed(MESSAGE), Status.OK, ""),
        ("identity", prefixed(MESSAGE), Status.OK, ""),
        ("br", prefixed(MESSAGE), Status.UNIMPLEMENTED, "grpc-encoding br is not served"),
    ],
)
async def test_bodies(short_path: Path, encoding: str | None, body: bytes, status: Status, text: str) -> None:
    head = block(PATH, *([("grpc-encoding", encoding)] if encoding else []))
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, body))
        (answer,) = await peer.answered(1)
        assert answer.status == status
        assert text in answer.text
        accepted = "identity,gzip" if status is Status.UNIMPLEMENTED else None
        assert answer.headers.get("grpc-accept-encoding") == accepted


async def test_a_call_without_a_body(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK))
        assert (await peer.answered(1))[0].status == Status.INTERNAL


async def test_a_streaming_client_hears_at_once_that_its_method_is_not_there(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, block("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")))
        (answer,) = await peer.answered(1)
        await peer.until(lambda: answer.reset is not None)
        assert (answer.status, answer.reset) == (Status.UNIMPLEMENTED, ErrorCode.NO_ERROR)
        peer.send(frame(DATA, 0, 1, b"late"), frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")), call(3))
        assert code((await peer.answered(3))[0]) == 1


@pytest.mark.parametrize(
    ("head", "http_status", "text"),
    [
        (block("/", method="GET", grpc=False), "415", "this is a gRPC server; content-type must be application/grpc\n"),
        (block("/", ("content-type", "application/json"), grpc=False), "415", None),
        (block("/", ("content-type", "application/grpc-web"), grpc=False), "415", None),
        (block(PATH, method="GET"), "405", "gRPC calls are POST requests\n"),
        (block(PATH, ("grpc-timeout", "soon")), "400", "grpc-timeout is malformed\n"),
        (literal(b":method", b"CONNECT") + literal(b":authority", b"x"), "405", None),
    ],
)
async def test_what_is_no_grpc_call(short_path: Path, head: bytes, http_status: str, text: str | None) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head))
        peer.send(frame(HEADERS, END_HEADERS, 3, head), frame(DATA, 0, 3, bytes(9_000)), frame(DATA, END_STREAM, 3))
        for answer in await peer.answered(1, 3):
            assert answer.headers[":status"] == http_status
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["content-length"] == str(len(answer.body))
            assert text in (None, answer.body.decode())


async def test_http_1_is_told_so(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect(start=False)
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(peer.reader.read(), 10)
        head, _, text = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 415 Unsupported Media Type\r\n")
        assert b"content-length: %d" % len(text) in head
        assert text.startswith(b"This is extauth's gRPC port")


async def test_curl_shows_what_this_port_is(short_path: Path) -> None:
    curl = program("curl", "Debian: apt install curl")
    async with serving(short_path) as served:
        for options in ([], ["--http2-prior-knowledge"]):
            shown = await said(curl, "--silent", "--show-error", *options, "--unix-socket", served.path, "http://x/")
            assert "gRPC" in shown


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (PREFACE[:-1] + b"?", ErrorCode.PROTOCOL_ERROR),
        (PREFACE + frame(frames.PING, 0, 0, b"12345678"), ErrorCode.PROTOCOL_ERROR),
        (PREFACE + frame(frames.SETTINGS, frames.ACK, 0), ErrorCode.PROTOCOL_ERROR),
        (START + frame(HEADERS, END_HEADERS, 2, BLOCK), ErrorCode.PROTOCOL_ERROR),
        (START + frame(HEADERS, END_HEADERS, 0, BLOCK), ErrorCode.PROTOCOL_ERROR),
        (START + frame(DATA, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (START + call(3) + frame(HEADERS, END_HEADERS, 1, BLOCK), ErrorCode.PROTOCOL_ERROR),
        (START + frame(HEADERS, END_HEADERS, 1, b"\xff"), ErrorCode.COMPRESSION_ERROR),
        (START + frame(HEADERS, END_HEADERS, 1, b"\x00\x7f"), ErrorCode.COMPRESSION_ERROR),
        (START + frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x20"), ErrorCode.COMPRESSION_ERROR),
        *((START + frame(HEADERS, END_HEADERS, 1, BLOCK + field), ErrorCode.COMPRESSION_ERROR) for field in MISPADDED),
        (START + frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f" + BLOCK), ErrorCode.COMPRESSION_ERROR),
        (START + frame(CONTINUATION, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (START + frame(HEADERS, 0, 1, BLOCK) + frame(DATA, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (START + frame(HEADERS, 0, 1, BLOCK) + frame(HEADERS, END_HEADERS, 3, BLOCK), ErrorCode.PROTOCOL_ERROR),
        (START + frame(DATA, 0, 1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
        (START + frame(frames.PUSH_PROMISE, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (START + frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"), ErrorCode.PROTOCOL_ERROR),
        (START + call(3) + frame(frames.PRIORITY, 0, 2, b"1234"), ErrorCode.FRAME_SIZE_ERROR),
        (START + frame(frames.PING, 0, 0, b"1234"), ErrorCode.FRAME_SIZE_ERROR),
        (START + frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        (START + frames.window_update(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (START + frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (START + frames.settings({frames.SETTINGS_MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_errors_of_the_connection(short_path: Path, sent: bytes, error: ErrorCode) -> None:
    async with serving(short_path) as served:
        peer = await served.connect(start=False)
        peer.send(sent)
        assert (await peer.ended())[0] == error
        await served.works()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (call(1) + frame(DATA, 0, 1), ErrorCode.STREAM_CLOSED),
        (frame(HEADERS, END_HEADERS, 1, BLOCK[len(literal(b":method", b"POST")) :]), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, literal(b"x", b"y")), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, BLOCK + literal(b"Upper", b"x")), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, BLOCK + literal(b"x", b"a\r\nb")), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, BLOCK + literal(b":path", b"/")), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, BLOCK + literal(b"connection", b"close")), ErrorCode.PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, BLOCK) * 2, ErrorCode.PROTOCOL_ERROR),
        (call(1, head=block(PATH, ("content-length", "7"))), ErrorCode.PROTOCOL_ERROR),
        (call(1) + frame(frames.PRIORITY, 0, 1, b"\0\0\0\x01\0"), ErrorCode.PROTOCOL_ERROR),
    ],
)
async def test_errors_of_a_stream(short_path: Path, sent: bytes, error: ErrorCode) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(sent)
        await peer.until(lambda: peer.answers.get(1, Answer()).reset is not None)
        assert peer.answers[1].reset == error
        served.counters.open.set()
        peer.send(call(3))
        assert code((await peer.answered(3))[0]) == 1
