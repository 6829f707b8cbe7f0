"""Calls of ShouldRateLimit as bytes: the message, the header block, and both in frames."""

from extauth.rls.protobuf import bytes_field, number_field
from extauth.rls.request import SERVICE
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from extauth.transport.h2.grpc_framing import literal

HOUR = 3  # RateLimitUnit


def descriptor(*entries: tuple[str, str], limit: int = 0) -> bytes:
    """A RateLimitRequest's field `descriptors`; with a `limit` of its own, per hour, if there is one."""
    pairs = (bytes_field(1, bytes_field(1, k.encode()) + bytes_field(2, v.encode())) for k, v in entries)
    own = bytes_field(2, number_field(1, limit) + number_field(2, HOUR)) if limit else b""
    return bytes_field(2, b"".join(pairs) + own)


def head(*extra: tuple[str, str]) -> bytes:
    """The header block of a call."""
    usual: tuple[tuple[str, str], ...] = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE}/ShouldRateLimit"),
        (":authority", "x"),
    )
    usual += (("te", "trailers"), ("content-type", "application/grpc"))
    return b"".join(literal(name.encode(), value.encode()) for name, value in (*usual, *extra))


def call(stream: int, body: bytes, block: bytes, *, end: bool = True) -> bytes:
    """A call in frames, within the windows that a stream begins with."""
    parts = [body[i : i + 16_384] for i in range(0, len(body), 16_384)]
    last = len(parts) - 1
    data = (frame(DATA, END_STREAM if end and i == last else 0, stream, part) for i, part in enumerate(parts))
    return frame(HEADERS, END_HEADERS, stream, block) + b"".join(data)
