"""Who closes a connection, and when: a case for each CloseReason, with what the client gets and what is counted."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.frames import ACK, CONTINUATION, END_HEADERS, HEADERS, PING, ErrorCode, frame
from extauth.transport.h2.grpc_framing import literal
from extauth.transport.tls import Tls, TlsFiles
from tests.support.h2_peer import BLOCK, START, Peer, Serving, call, serving
from tests.support.wait import until_async
from tests.transport.test_tls import Authority, write

CALM, NO_ERROR = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.NO_ERROR
PUSH = frame(frames.PUSH_PROMISE, 0, 1)  # which no client may send


@dataclass
class Case:
    """`act` returns a connection that the server closes; `goaways`, code and text, are what its client has got."""

    act: Callable[[Serving], Awaitable[Peer]]
    goaways: list[tuple[ErrorCode, str]] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    tls: bool = False
    client_san: str | None = None


def sends(*parts: bytes, start: bool = True) -> Callable[[Serving], Awaitable[Peer]]:
    async def act(served: Serving) -> Peer:
        peer = await served.connect(start=start)
        peer.send(*parts)
        return peer

    return act


async def answered(served: Serving) -> Peer:
    peer = await served.connect()
    peer.send(call(1))
    await peer.answered(1)
    return peer


async def one_too_many(served: Serving) -> Peer:
    await waiting(served)
    return await served.connect()


async def is_idle(served: Serving) -> Peer:
    """Of 8 connections, the last makes the one end that has been unused for longest."""
    first, *_ = [await answered(served) for _ in range(7)]
    await served.connect()
    return await acknowledged(first)


async def acknowledged(peer: Peer) -> Peer:
    """The client hears of the first GOAWAY."""
    await peer.until(lambda: peer.pings)
    peer.send(frame(PING, ACK, 0, peer.pings[0][1]))
    return peer


async def becomes_old(served: Serving) -> Peer:
    return await acknowledged(await served.connect())


async def stops(served: Serving) -> Peer:
    peer = await answered(served)
    stopping = asyncio.create_task(served.server.stop(10))
    await acknowledged(peer)
    await stopping
    return peer


async def stops_without_grace(served: Serving) -> Peer:
    peer = await waiting(served)
    await served.server.stop(0.05)
    return peer


async def waiting(served: Serving) -> Peer:
    """A connection with a call that the store does not answer."""
    served.counters.open.clear()
    peer = await served.connect()
    peer.send(call(1))
    await served.asked()
    return peer


async def reads_nothing(served: Serving) -> Peer:
    peer = await served.connect()
    peer.send(frame(PING, 0, 0, bytes(8)) * 200_000)
    await until_async(lambda: served.tripped)
    return peer


async def breaks_http2_while_a_call_waits(served: Serving) -> Peer:
    peer = await waiting(served)
    peer.send(PUSH)
    return peer


async def hangs_up(served: Serving) -> Peer:
    peer = await waiting(served)
    peer.writer.write_eof()
    return peer


def over_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def is_nobody(served: Serving) -> Peer:
    """A client without a certificate."""
    return await served.connect(tls=over_tls())


async def one_too_many_over_tls(served: Serving) -> Peer:
    served.counters.open.clear()
    peer = await served.connect(tls=over_tls())
    peer.send(call(1))
    await served.asked()
    return await served.connect(start=False)


FLOOD = ConnectionLimits(max_control_frames_per_s=1, max_resets_per_s=1)
STALL = ConnectionLimits(stall_timeout_s=0.1)
OLD = ConnectionLimits(max_age_s=0.1, stall_timeout_s=0.4)
SLOW_READER = ConnectionLimits(stall_timeout_s=0.1, max_control_frames_per_s=1_000_000)
CONTINUED = frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 2
# Two blocks of 16 KB, of which the second repeats a header of 4 KB from the table 16,000 times.
BOMB = frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
BOMB += frame(HEADERS, END_HEADERS, 3, BLOCK + b"\xbe" * 16_000)
WRONG = b"".join(frame(HEADERS, END_HEADERS, stream, literal(b"x", b"y")) for stream in range(1, 41, 2))
GOING = (NO_ERROR, "shutting down")

CASES = {
    CloseReason.SLOW_START: Case(
        sends(START[:20], start=False),
        [(ErrorCode.SETTINGS_TIMEOUT, "no preface and SETTINGS in time")],
        [Guard.SLOW_START],
        STALL,
    ),
    CloseReason.SLOW_HEADERS: Case(
        sends(frame(HEADERS, 0, 1, BLOCK)),
        [(CALM, "a header block is not finished in time")],
        [Guard.SLOW_REQUEST],
        STALL,
    ),
    CloseReason.HEADER_LIST: Case(sends(BOMB), [(CALM, "header list too large")], [Guard.HEADERS]),
    CloseReason.HEADER_BLOCK: Case(
        sends(CONTINUED),
        [(CALM, "a header block too large, or in too many frames")],
        [Guard.HEADERS],
        ConnectionLimits(max_continuations=1),
    ),
    CloseReason.HEADER_MEMORY: Case(
        sends(frame(HEADERS, 0, 1, bytes(16_000))),
        [(CALM, "no memory for more of a header block")],
        [Guard.HEADERS],
        ConnectionLimits(max_unfinished_bytes=10_000),
    ),
    CloseReason.CONTROL_FRAMES: Case(
        sends(frame(PING, 0, 0, bytes(8)) * 20),
        [(CALM, "too many frames that ask for nothing")],
        [Guard.CONTROL_FRAMES],
        FLOOD,
    ),
    CloseReason.RESETS: Case(sends(WRONG), [(CALM, "too many streams that had to be reset")], [Guard.RESETS], FLOOD),
    CloseReason.TOO_MANY: Case(
        one_too_many, [(CALM, "too many connections")], [Guard.CONNECTIONS], ConnectionLimits(max_connections=1)
    ),
    CloseReason.IDLE: Case(is_idle, [GOING] * 2, [Guard.IDLE], ConnectionLimits(max_connections=8)),
    CloseReason.OLD: Case(becomes_old, [(NO_ERROR, "max_age")] * 2, [], OLD),
    CloseReason.SHUTDOWN: Case(stops, [GOING] * 2),
    CloseReason.NOT_HTTP2: Case(sends(b"GET / HTTP/1.1\r\n\r\n", start=False)),
    CloseReason.SLOW_READER: Case(reads_nothing, [], [Guard.SLOW_READER], SLOW_READER),
    CloseReason.UNANSWERED: Case(
        breaks_http2_while_a_call_waits, [(ErrorCode.PROTOCOL_ERROR, "a client cannot push")], [], STALL
    ),
    CloseReason.GRACE_OVER: Case(stops_without_grace, [GOING]),
    CloseReason.CLIENT_GONE: Case(hangs_up),
    CloseReason.TLS_TOO_MANY: Case(
        one_too_many_over_tls, [], [Guard.CONNECTIONS], ConnectionLimits(max_connections=1), tls=True
    ),
    CloseReason.TLS_SILENT: Case(partial(Serving.connect, start=False), [], [Guard.SLOW_START], STALL, tls=True),
    CloseReason.TLS_FAILED: Case(sends(b"no ClientHello", start=False), tls=True),
    CloseReason.OTHER_CLIENT: Case(is_nobody, tls=True, client_san="envoy"),
}


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.name)
async def test_why_a_connection_is_closed(
    reason: CloseReason, short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauth.transport.h2.connection.IDLE_S", 0)
    case = CASES[reason]
    tls = None
    if case.tls:
        files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
        write(files, Authority())
        tls = Tls(files, case.client_san)
    async with serving(short_path, case.limits, tls=tls) as served:
        peer = await case.act(served)
        await peer.gone()
        assert [(code, text) for _, code, text in peer.goaways] == case.goaways
        assert served.tripped == case.guards
