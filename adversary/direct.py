"""Hostile clients of extauth's gRPC port: calls and frames that Envoy would not send."""

import asyncio
import zlib

from adversary.wire import Connection, Target, message, repeat
from extauth.rls.protobuf import bytes_field
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.calls import call, descriptor, head


async def resets(target: Target) -> None:
    """Calls that are reset at once, at extauth itself."""
    block, body = head(), prefixed(message())
    reset = frames.rst_stream
    await repeat(target, target.replica, lambda s: call(s, body, block) + reset(s, ErrorCode.CANCEL), judged=False)


async def control_frames(target: Target) -> None:
    """PING, SETTINGS, WINDOW_UPDATE and PRIORITY between the calls."""
    noise = frame(frames.PING, 0, 0, b"12345678") + frames.settings({4: 1000, 5: 16_384}) + frames.window_update(0, 1)
    noise += frame(frames.PRIORITY, 0, 1, b"\0\0\0\x03\x10")
    block, body = head(), prefixed(message())
    await repeat(target, target.replica, lambda s: noise * 16 + call(s, body, block))


async def slow_bodies(target: Target) -> None:
    """Messages that stop a byte before their end, on many connections, for as long as their windows have room."""
    block = head()
    body = prefixed(message(bytes_field(9, bytes(60_000))))[:-1]

    async def hold() -> None:
        connection = await Connection.to(target.replica, target)
        for stream in range(1, 200, 2):
            if not await connection.take_window(len(body), target.left_s()):
                break
            await connection.send(call(stream, body, block, end=False))
            target.sent += 1
        await asyncio.sleep(target.left_s())
        await connection.close()

    results = await asyncio.gather(*(hold() for _ in range(100)), return_exceptions=True)
    target.errors += sum(isinstance(result, Exception) for result in results)


async def dripping(target: Target) -> None:
    """Messages of which each byte is a frame of its own, so that a call costs a hundred times its size in frames."""
    block, body = head(), prefixed(message())
    end = len(body) - 1
    drops = [(END_STREAM if i == end else 0, body[i : i + 1]) for i in range(len(body))]

    def make(stream: int) -> bytes:
        data = (frame(DATA, flags, stream, drop) for flags, drop in drops)
        return frame(HEADERS, END_HEADERS, stream, block) + b"".join(data)

    await repeat(target, target.replica, make)


async def large_messages(target: Target) -> None:
    """Messages that announce more bytes than are accepted."""
    block, body = head(), bytes((0, *(5 << 20).to_bytes(4, "big"))) + message()
    await repeat(target, target.replica, lambda s: call(s, body, block, end=False))


async def long_headers(target: Target) -> None:
    """Header lists of 300 KB, which are longer than what is evaluated."""
    body, parts = prefixed(message()), [literal(b"x-%d" % i, b"y" * 16_000) for i in range(19)]

    def make(stream: int) -> bytes:
        last = len(parts) - 1
        rest = (frame(CONTINUATION, END_HEADERS if i == last else 0, stream, p) for i, p in enumerate(parts))
        return frame(HEADERS, 0, stream, head()) + b"".join(rest) + frame(DATA, END_STREAM, stream, body)

    await repeat(target, target.replica, make)


async def endless_headers(target: Target) -> None:
    """Header lists of more than 1 MiB, which end their connection."""
    block = b"".join(literal(b"x-%d" % i, b"y" * 16_000) for i in range(80))
    parts = [block[i : i + 16_000] for i in range(0, len(block), 16_000)]
    data = b"".join(frame(CONTINUATION, 0, 1, part) for part in parts)
    await repeat(target, target.replica, lambda _: frame(HEADERS, 0, 1, head()) + data, per_connection=1, judged=False)


async def slow_headers(target: Target) -> None:
    """Header blocks that never end, on many connections."""

    async def hold() -> None:
        connection = await Connection.to(target.replica)
        await connection.send(frame(HEADERS, 0, 1, head()))
        for _ in range(60):
            await connection.send(frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 16_000)))
            target.sent += 1
            if target.over():
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(target.left_s())
        await connection.close()

    results = await asyncio.gather(*(hold() for _ in range(100)), return_exceptions=True)
    target.errors += sum(isinstance(result, Exception) for result in results)


async def impatient(target: Target) -> None:
    """Calls that give up after a millisecond, which the failure policy answers."""
    block, body = head(("grpc-timeout", "1m")), prefixed(message())
    await repeat(target, target.replica, lambda s: call(s, body, block), judged=False)


async def swelling(target: Target) -> None:
    """Messages that are small while they are compressed."""
    block = head(("grpc-encoding", "gzip"))
    packed = zlib.compress(message(bytes_field(9, b"z" * 60_000)), wbits=31)
    body = b"\x01" + len(packed).to_bytes(4, "big") + packed
    await repeat(target, target.replica, lambda s: call(s, body, block))


async def malformed(target: Target) -> None:
    """Calls that are none, and frames that break HTTP/2, on fresh connections."""
    block = head()
    breaking = (
        frame(frames.PUSH_PROMISE, 0, 1, bytes(4)),
        frame(HEADERS, END_HEADERS, 9_999_999, b"\xff\xff\xff"),
        frame(DATA, 0, 0, b"x"),
        frames.window_update(0, 0),
        b"GET / HTTP/1.1\r\n\r\n",
    )

    def make(stream: int) -> bytes:
        if stream % 32 == 31:
            return breaking[stream // 32 % len(breaking)]
        return call(stream, prefixed(b"\xff" if stream % 4 == 1 else b""), block)

    await repeat(target, target.replica, make, per_connection=16, judged=False)


async def call_flood(target: Target) -> None:
    """More calls at once than may be open, on several connections; the failure policy answers those past that."""
    block, body = head(), prefixed(message())

    def make(stream: int) -> bytes:
        return b"".join(call(stream * 32 + 1 + 2 * i, body, block) for i in range(32))

    async def one() -> None:
        await repeat(target, target.replica, make, judged=False)

    await asyncio.gather(*(one() for _ in range(8)))


async def descriptors(target: Target) -> None:
    """Calls with more descriptors than are evaluated."""
    block = head()
    body = prefixed(message(*(descriptor(("n", str(i))) for i in range(200))))
    await repeat(target, target.replica, lambda s: call(s, body, block))
