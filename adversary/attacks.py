"""The hostile clients, each in a process of its own: `python -m adversary.attacks NAME EDGE REPLICA ADMIN SECONDS`.

EDGE is Envoy's port, REPLICA that of an extauth's gRPC listener and ADMIN that of its admin listener, on 127.0.0.1. A
client ends after SECONDS and prints a JSON object of what it did: `sent`, `errors`, `answered`, and `passed`, the
requests or calls of its own, used-up caller that got another answer than a denial. The answers to direct calls are
judged too, except where the failure policy may give them, or where what is sent is no call.
"""

import asyncio
import json
import os
import random
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from adversary import costly
from adversary.wire import (
    HOSTILE_KEY,
    OPEN_KEY,
    Connection,
    Target,
    call,
    descriptor,
    head,
    http1,
    message,
    repeat,
)
from extauth.rls.protobuf import bytes_field
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, ErrorCode, frame
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.h2_peer import Peer

BURST = 480  # streams opened and reset on a fresh connection


@dataclass(frozen=True)
class Attack:
    """A hostile client; `wide`: for an Envoy with Envoy's own defaults and tracing, not for the one as shipped.

    With `judged` its calls must be answered: where none of them is, all of them passed.
    """

    run: Callable[[Target], Awaitable[None]]
    wide: bool = False
    judged: bool = True


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


async def direct_resets(target: Target) -> None:
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


ATTACKS = {
    "flood": Attack(flood),
    "two_keys": Attack(two_keys),
    "resets_5k": Attack(resets(10), judged=False),
    "resets_20k": Attack(resets(40), judged=False),
    "resets_100k": Attack(resets(200), judged=False),
    "direct_resets": Attack(direct_resets, judged=False),
    "control_frames": Attack(control_frames),
    "slow_bodies": Attack(slow_bodies, judged=False),  # they are answered later than a short run lasts
    "dripping": Attack(dripping),
    "large_messages": Attack(large_messages),
    "swelling": Attack(swelling),
    "descriptors": Attack(descriptors),
    "slow_headers": Attack(slow_headers, judged=False),
    "long_headers": Attack(long_headers),
    "endless_headers": Attack(endless_headers, judged=False),
    "impatient": Attack(impatient, judged=False),
    "malformed": Attack(malformed, judged=False),
    "call_flood": Attack(call_flood, judged=False),
    "made_up_keys": Attack(costly.made_up_keys),
    "made_up_names": Attack(costly.made_up_names),
    "wide_calls": Attack(costly.wide_calls),
    "deep_calls": Attack(costly.deep_calls),
    "unique_blocks": Attack(costly.unique_blocks),
    "health_checks": Attack(costly.health_checks, judged=False),
    "http1_text": Attack(costly.http1_text, judged=False),
    "idle": Attack(costly.idle, judged=False),
    "scrapes": Attack(costly.scrapes, judged=False),
    "tracestate_16k": Attack(tracestate(16_000), wide=True),
    "tracestate_55k": Attack(tracestate(55_000), wide=True),
    "white_space": Attack(white_space, wide=True),
    "many_headers": Attack(many_headers, wide=True),
    "long_path": Attack(long_path, wide=True),
}


async def main() -> None:
    """Run one."""
    name, edge, replica, admin, seconds = sys.argv[1:]
    target = Target(int(edge), int(replica), int(admin), float(seconds))
    async with asyncio.timeout(target.seconds + 20):
        await ATTACKS[name].run(target)
    if ATTACKS[name].judged and not target.answered:
        target.passed += target.sent  # Envoy lets a request through whose call gets no answer
    told = {"sent": target.sent, "answered": target.answered, "passed": target.passed, "errors": target.errors}
    print(json.dumps(told))


if __name__ == "__main__":
    os.nice(5)  # a client elsewhere takes no time from the stack
    asyncio.run(main())
