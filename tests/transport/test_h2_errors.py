"""What is no call, or no HTTP/2, gets the error that its specification names."""

import asyncio
import zlib
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
    PREFACE,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import Status, literal, prefixed
from tests.support.codes import OK
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, START, Answer, block, call, serving
from tests.support.programs import program, said

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
        peer.send(
            frame(HEADERS, END_HEADERS, 1, block("/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"))
        )
        (answer,) = await peer.answered(1)
        await peer.until(lambda: answer.reset is not None)
        assert (answer.status, answer.reset) == (Status.UNIMPLEMENTED, ErrorCode.NO_ERROR)
        peer.send(frame(DATA, 0, 1, b"late"), frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")), call(3))
        assert (await peer.answered(3))[0].code == OK


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
        assert (await peer.answered(3))[0].code == OK
