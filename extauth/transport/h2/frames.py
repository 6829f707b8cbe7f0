"""HTTP/2 frames (RFC 9113 §6): their names, and how to write them."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = 2**31 - 1
MIN_MAX_FRAME_SIZE: Final = 16_384
MAX_STREAM_ID: Final = 2**31 - 1

# Frame types. Plain numbers: they are compared once or more a frame.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_ENABLE_PUSH: Final = 2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4
SETTINGS_MAX_FRAME_SIZE: Final = 5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 6

HEAD: Final = struct.Struct(">HBBBI")
"""A frame's head: length (high 16 bits, low 8), type, flags, stream (its high bit is reserved)."""


SETTING: Final = struct.Struct(">HI")
"""One setting: name, value."""


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class H2Error(Exception):
    """The peer broke the protocol or a limit: the connection ends with GOAWAY, `code` and this text (`closing.py`).

    With `stream`, only that stream ends, with RST_STREAM and `code`.
    """

    def __init__(self, code: ErrorCode, reason: str, stream: int = 0) -> None:
        self.code = code
        self.stream = stream
        super().__init__(reason)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def can_be_handled(data: bytes) -> bool:
    """Whether a frame whose head has come is whole, or is too large and so an error."""
    length = int.from_bytes(data[:3], "big")
    return length > MIN_MAX_FRAME_SIZE or len(data) >= HEAD.size + length


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """An RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def goaway(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """A GOAWAY frame; `reason` is for whoever debugs the peer."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + reason.encode())


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a DATA or HEADERS frame holds without its padding; raises H2Error (RFC 9113 §6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "padding as long as its frame or longer")
    return payload[1 : len(payload) - payload[0]]
