"""Hostile clients that want much for little: of the event loop, of the store, of memory, and of descriptors."""

import asyncio
import zlib
from itertools import cycle

from adversary.wire import Connection, Target, message, repeat
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.calls import call, descriptor, head

IDLE_CONNECTIONS = 1500  # more than extauth lets in, and fewer than a process may usually open
ADMIN_CLIENTS = 48


async def made_up_keys(target: Target) -> None:
    """API keys that nobody has asked with before, of 62 KB each."""
    block, filler = head(), "k" * 62_000
    await repeat(
        target,
        target.replica,
        lambda s: call(s, prefixed(message(descriptor(("api_key", f"{s}-{filler}")))), block),
    )


async def made_up_names(target: Target) -> None:
    """Names for the metrics: values of 30 KB that become part of a rule's name, and keys with limits of their own."""
    block, filler = head(), "n" * 30_000

    def make(stream: int) -> bytes:
        named = descriptor(("named", f"{stream}-{filler}"))
        own = descriptor((f"own-{stream}", "v"), limit=stream)
        return call(stream, prefixed(message(named, own)), block)

    await repeat(target, target.replica, make)


async def wide_calls(target: Target) -> None:
    """Calls of 100 descriptors, each of which is counted."""
    block = head()

    def make(stream: int) -> bytes:
        own = (descriptor(("wide", f"{stream}-{i}"), limit=1_000_000) for i in range(99))
        return call(stream, prefixed(message(*own)), block)

    await repeat(target, target.replica, make)


async def deep_calls(target: Target) -> None:
    """Compressed calls of 100 descriptors, each of 54 entries and with a limit of its own."""
    block = head(("grpc-encoding", "gzip"))

    def make(stream: int) -> bytes:
        own = (descriptor(*((f"k{i}", f"{stream}-{n}") for i in range(54)), limit=1_000_000) for n in range(99))
        packed = zlib.compress(message(*own), wbits=31)
        return call(stream, b"\x01" + len(packed).to_bytes(4, "big") + packed, block)

    await repeat(target, target.replica, make)


async def unique_blocks(target: Target) -> None:
    """Header blocks of which no two are alike."""
    body, usual = prefixed(message()), head()
    await repeat(target, target.replica, lambda s: call(s, body, usual + literal(b"x-%d" % s, b"%d" % s + b"y" * 1800)))


async def health_checks(target: Target) -> None:
    """Many health checks."""
    block, body = head().replace(*_PATHS), prefixed(b"")
    await repeat(
        target,
        target.replica,
        lambda s: b"".join(call(s * 16 + 1 + 2 * i, body, block) for i in range(16)),
        judged=False,
    )


_PATHS = (
    literal(b":path", b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"),
    literal(b":path", b"/grpc.health.v1.Health/Check"),
)


async def http1_text(target: Target) -> None:
    """Text of HTTP/1.1 that does not end, where HTTP/2 is spoken."""
    text = b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000

    async def send() -> None:
        while not target.over():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", target.replica)
                for _ in range(20):
                    writer.write(text)
                    await asyncio.wait_for(writer.drain(), 5)
                    target.sent += 1
                    if target.over():
                        break
                writer.close()
            except (OSError, TimeoutError):
                target.errors += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(send() for _ in range(4)))


async def idle(target: Target) -> None:
    """Connections that are not used."""
    held: list[Connection] = []
    for _ in range(IDLE_CONNECTIONS):
        if target.over():
            break
        try:
            held.append(await Connection.to(target.replica))
            target.sent += 1
        except OSError:
            target.errors += 1
    await asyncio.sleep(target.left_s())
    for connection in held:
        await connection.close()


async def scrapes(target: Target) -> None:
    """Scrapes, pages, what is no request, and what never ends, at the admin port."""
    asks = cycle(
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"GET /rules HTTP/1.0\r\n\r\n", b"GET /met", b"\xff\xfe \r\n\r\n", b"")
    )

    async def ask() -> None:
        while not target.over():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", target.admin)
                writer.write(next(asks))
                target.sent += 1
                async with asyncio.timeout(min(2, max(target.seconds / 4, 0.1))):
                    while await reader.read(65_536):
                        pass
                writer.close()
            except TimeoutError:
                writer.close()
            except OSError:
                target.errors += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(ask() for _ in range(ADMIN_CLIENTS)))
