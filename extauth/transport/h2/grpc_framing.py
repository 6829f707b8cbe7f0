"""GRPC over HTTP/2: the framing of messages in bodies, and answers as frames.

Source: the gRPC project's PROTOCOL-HTTP2. Header blocks are written without the dynamic table, so that an answer
is made of constants and depends on nothing sent before.
"""

import zlib
from enum import IntEnum
from typing import Final
from urllib.parse import quote

from extauth.errors import RequestTooLargeError
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, frame

ENCODINGS: Final = ("identity", "gzip")


class Status(IntEnum):
    """The gRPC status codes that are used here."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class GrpcError(Exception):
    """The call ends with this status and text."""

    def __init__(self, status: Status, text: str) -> None:
        self.status = status
        super().__init__(text)


def unframe(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The one message of a whole body; raises GrpcError, and RequestTooLargeError past `max_bytes`, inflated."""
    if len(body) < 5 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
        raise GrpcError(Status.INTERNAL, "a unary call needs one whole message")
    if body[0] == 0:
        return body[5:]
    if body[0] != 1 or encoding == "identity":
        raise GrpcError(Status.INTERNAL, "the message is flagged as compressed, without a grpc-encoding that says how")
    inflater = zlib.decompressobj(wbits=31)
    try:
        message = inflater.decompress(body[5:], max_bytes + 1)
    except zlib.error as error:
        raise GrpcError(Status.INTERNAL, "the message is not gzip") from error
    if len(message) > max_bytes:
        raise RequestTooLargeError(f"a message holds at most {max_bytes} bytes, decompressed")
    if not inflater.eof:
        raise GrpcError(Status.INTERNAL, "the message's gzip data is cut off")
    return message


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, neither indexed nor Huffman-coded (RFC 7541 §6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 0x7F:
        return bytes((size,)) + value
    rest, encoded = size - 0x7F, bytearray((0x7F,))
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + value


_OK_BLOCK: Final = b"\x88" + literal(b"content-type", b"application/grpc")
_TRAILER_BLOCK: Final = literal(b"grpc-status", b"0")
ANSWER_TRAILERS: Final = _TRAILER_BLOCK
ANSWER_HEADERS: Final = _OK_BLOCK

# An answer's three frames are the text between the three places of the stream's number, so that they can be joined.
_HEADERS_FRAME: Final = frame(HEADERS, END_HEADERS, 0, _OK_BLOCK)
_BEFORE: Final = _HEADERS_FRAME[:5]
_BEFORE_TRAILERS: Final = frame(HEADERS, END_HEADERS | END_STREAM, 0, _TRAILER_BLOCK)[:5]
_BEFORE_DATA: Final = [
    _HEADERS_FRAME[9:] + HEAD.pack((n + 5) >> 8, (n + 5) & 0xFF, DATA, 0, 0)[:5] for n in range(2048)
]
_PREFIXES: Final = [b"\x00" + n.to_bytes(4, "big") for n in range(2048)]
"""By the message's size: the end of the first frame with the head of the second one, and the message's prefix."""


def answer_frames(stream: int, message: bytes) -> bytes:
    """An OK answer as three frames, for windows and frames that hold a message of up to 2,047 bytes."""
    size = len(message)
    return stream.to_bytes(4, "big").join(
        (_BEFORE, _BEFORE_DATA[size], _PREFIXES[size] + message + _BEFORE_TRAILERS, _TRAILER_BLOCK)
    )


MAX_FAST_BYTES: Final = len(_PREFIXES) - 1


def prefixed(message: bytes) -> bytes:
    """The message with the prefix that it has in a body."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def refusal_block(status: Status, text: str, *extra: tuple[bytes, bytes]) -> bytes:
    """The header block of an answer that is a status alone."""
    return _OK_BLOCK + trailer_block(status, text) + b"".join(literal(name, value) for name, value in extra)


def trailer_block(status: Status, text: str) -> bytes:
    """The header block of the trailers that end an answer with this status."""
    block = literal(b"grpc-status", b"%d" % status)
    if text:
        block += literal(b"grpc-message", quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode())
    return block


def plain_block(http_status: int, body: bytes) -> bytes:
    """The header block of the answer to a request that is not a gRPC call."""
    return (
        literal(b":status", b"%d" % http_status)
        + literal(b"content-type", b"text/plain; charset=utf-8")
        + literal(b"content-length", b"%d" % len(body))
    )
