"""Asks another replica for the status of a service by grpc.health.v1: one call on a connection of its own.

HTTP/2 with one stream and no state to keep takes a page; a gRPC library would hold tens of MB for it.
"""

import asyncio
import ssl
from typing import Final

from extauth.address import split_address
from extauth.rls.protobuf import fields
from extauth.transport.h2 import frames
from extauth.transport.h2.grpc_framing import literal, prefixed, unframe
from extauth.transport.h2.health import SERVING
from extauth.transport.h2.request_head import Method

MAX_ANSWER_BYTES = 65_536
_STREAM: Final = 1


async def is_serving(address: str, service: str, timeout_s: float, tls: ssl.SSLContext | None = None) -> bool:
    """Whether HOST:PORT answers SERVING within the time; whatever else there is instead counts as no."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(address, service, tls)
    except Exception:  # noqa: BLE001 - addresses, certificates and bytes come from elsewhere, and are wrong in any way
        return False


async def _ask(address: str, service: str, tls: ssl.SSLContext | None) -> bool:
    host, port = split_address(address)
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(_request(service, b"http" if tls is None else b"https"))
        message = unframe(await _body(reader), "identity", MAX_ANSWER_BYTES)
        return dict(fields(message)).get(1) == SERVING
    finally:
        writer.transport.abort()


def _request(service: str, scheme: bytes) -> bytes:
    block = b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", scheme),
            (b":path", Method.HEALTH_CHECK.value.encode()),
            (b":authority", b"extauth"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    name = service.encode()
    message = bytes((0x0A, len(name))) + name
    return (
        frames.PREFACE
        + frames.settings({})
        + frames.frame(frames.HEADERS, frames.END_HEADERS, _STREAM, block)
        + frames.frame(frames.DATA, frames.END_STREAM, _STREAM, prefixed(message))
    )


async def _body(reader: asyncio.StreamReader) -> bytes:
    """The data on the stream until that ends. What headers and trailers say is not needed: only an OK has a message."""
    body = b""
    read = 0
    while True:
        high, low, kind, flags, stream = frames.HEAD.unpack(await reader.readexactly(frames.HEAD.size))
        size = high << 8 | low
        read += frames.HEAD.size + size
        if read > MAX_ANSWER_BYTES:
            raise ValueError("a health check's answer is short")
        payload = await reader.readexactly(size)
        if stream != _STREAM:
            continue
        if kind == frames.DATA:
            body += frames.unpadded(flags, payload)
        elif kind == frames.RST_STREAM:
            return body
        if kind in {frames.DATA, frames.HEADERS} and flags & frames.END_STREAM:
            return body
