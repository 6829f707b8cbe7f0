"""Asking another replica for its health: real engines, and peers that are none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from extauth.rls.request import SERVICE
from extauth.transport.batching import Batcher
from extauth.transport.engine import EngineContext
from extauth.transport.grpcio import GrpcioServer
from extauth.transport.h2 import frames
from extauth.transport.h2.grpc_framing import ANSWER_HEADERS, answer_frames, prefixed
from extauth.transport.h2.server import H2Server
from extauth.transport.health_client import MAX_ANSWER_BYTES, is_serving
from extauth.transport.tls import Tls, TlsFiles
from tests.support.ports import free_port
from tests.support.service import decider_of
from tests.transport.test_tls import ENGINES, Authority, write

STORE = "extauth.store"


@asynccontextmanager
async def serving(kind: str, tls: Tls | None = None) -> AsyncIterator[tuple[str, GrpcioServer | H2Server]]:
    decider = decider_of()
    address = f"127.0.0.1:{free_port()}"
    server = ENGINES[kind](address, EngineContext(planner=decider.planner, batcher=Batcher(decider), tls=tls))
    await server.start()
    try:
        yield address, server
    finally:
        await server.stop(1)


@pytest.mark.parametrize("kind", ENGINES)
async def test_an_engine_is_asked_for_each_service(kind: str) -> None:
    async with serving(kind) as (address, server):
        asked = [(name, await is_serving(address, name, 10)) for name in ("", SERVICE, STORE, "other")]
        assert asked == [("", True), (SERVICE, True), (STORE, False), ("other", False)]
        await server.report(serving=False, store=True)
        assert [await is_serving(address, name, 10) for name in ("", STORE)] == [False, True]
        await server.drain()
        assert not await is_serving(address, STORE, 10)


@pytest.mark.parametrize("kind", ENGINES)
async def test_over_tls_replicas_of_one_certificate_trust_each_other(kind: str, tmp_path: Path) -> None:
    files, foreign = (TlsFiles(tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in "ab")
    for each in (files, foreign):
        write(each, Authority())
    tls = Tls(files)
    async with serving(kind, tls) as (address, _):
        assert await is_serving(address, "", 10, tls.client())
        assert not await is_serving(address, "", 10, Tls(foreign).client())
        assert not await is_serving(address, "", 10)


@pytest.mark.parametrize("kind", ENGINES)
async def test_over_mutual_tls_replicas_trust_the_ca_of_their_clients(kind: str, tmp_path: Path) -> None:
    """Each has a certificate of its own, of the CA that its clients have theirs of, and another one has none."""
    ours = Authority()
    one, other, foreign = (
        TlsFiles(tmp_path / f"{name}.pem", tmp_path / f"{name}.key", tmp_path / f"{name}.ca") for name in "abc"
    )
    for files in (one, other):
        write(files, ours, ours)
    write(foreign, Authority(), ours)
    async with serving(kind, Tls(one)) as (address, _):
        assert await is_serving(address, "", 10, Tls(other).client())
        assert not await is_serving(address, "", 10, Tls(foreign).client())


async def test_certificates_that_were_replaced_are_shown_from_then_on(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    ours, theirs = (
        TlsFiles(tmp_path / f"{name}.pem", tmp_path / f"{name}.key", tmp_path / f"{name}.ca") for name in "ab"
    )
    write(ours, old, old)
    write(theirs, new, new)
    tls = Tls(ours)
    assert tls.client() is tls.client()
    async with serving("h2", Tls(theirs)) as (address, _):
        assert not await is_serving(address, "", 10, tls.client())
        write(ours, new, new)
        assert tls.reload()
        assert await is_serving(address, "", 10, tls.client())


async def test_files_that_are_gone_are_an_error_of_the_system(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(files, Authority())
    tls = Tls(files)
    files.key.unlink()
    with pytest.raises(OSError, match="No such file"):
        tls.client()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
SERVING_ANSWER = answer_frames(1, b"\x08\x01")
SETTINGS = frames.settings({})
HEADERS = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, ANSWER_HEADERS)
TRAILERS = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1)


@asynccontextmanager
async def peer(answer: bytes, *, stays: bool = False) -> AsyncIterator[str]:
    """One that answers whatever it is sent with these bytes, and closes, unless it stays."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(frames.PREFACE))
        writer.write(answer)
        if stays:
            await over.wait()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        over.set()
        server.close()


def data(payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return frames.frame(frames.DATA, flags, stream, payload)


@pytest.mark.parametrize(
    ("answer", "served"),
    [
        (SETTINGS + SERVING_ANSWER, True),
        (SERVING_ANSWER + b"more", True),
        (SETTINGS + HEADERS + data(prefixed(b"\x08\x01"), frames.END_STREAM), True),
        (HEADERS + data(prefixed(b"\x08\x01")[:3]) + data(prefixed(b"\x08\x01")[3:]) + TRAILERS, True),
        (HEADERS + data(b"\x02" + prefixed(b"\x08\x01") + bytes(2), frames.PADDED) + TRAILERS, True),
        (HEADERS + data(b"other", stream=3) + data(prefixed(b"\x08\x01")) + TRAILERS, True),
        (answer_frames(1, b"\x08\x02"), False),
        (answer_frames(1, b"\x08\x03"), False),
        (answer_frames(1, b""), False),
        (answer_frames(1, b"\x0a\x01\x01"), False),
        (answer_frames(1, b"\xff\xff"), False),
        (HEADERS + data(b"\x01" + prefixed(b"\x08\x01")[1:]) + TRAILERS, False),
        (HEADERS + data(b"\x09\x00", frames.PADDED) + TRAILERS, False),
        (HEADERS + frames.rst_stream(1, frames.ErrorCode.CANCEL), False),
        (TRAILERS, False),
        (SERVING_ANSWER[:-1], False),
        (frames.frame(frames.PING, 0, 0, bytes(MAX_ANSWER_BYTES)) + SERVING_ANSWER, False),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_only_an_answer_that_says_so_counts(answer: bytes, *, served: bool) -> None:
    async with peer(answer) as address:
        assert await is_serving(address, STORE, 10) is served


@pytest.mark.parametrize("answer", [b"", HEADERS, HEADERS + data(prefixed(b"\x08\x01"))])
async def test_one_that_stays_silent_is_given_up_in_time(answer: bytes) -> None:
    async with peer(answer, stays=True) as address:
        assert not await is_serving(address, STORE, 0.05)


@pytest.mark.parametrize(
    "address", ["nobody.invalid:8081", "[::1]:1", "127.0.0.1:1", "127.0.0.1:99999", "rubbish", ":"]
)
async def test_where_nobody_is_the_answer_is_no(address: str) -> None:
    assert not await is_serving(address, STORE, 10, None)
    assert not await is_serving(address, STORE, 10, ssl.create_default_context())
