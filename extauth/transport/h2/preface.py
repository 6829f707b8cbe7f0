"""How a connection begins: what the client must send first (RFC 9113 §3.4), our SETTINGS, and the answer to HTTP/1."""

from typing import Final

from extauth.transport.engine import MAX_BLOCK_BYTES
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import ACK, HEAD, PREFACE, ErrorCode, H2Error

_HTTP1 = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"PATC")
_NOT_HTTP2_TEXT = (
    b"This is extauth's gRPC port, for Envoy's rate limit filter: it serves HTTP/2 only.\n"
    b"/metrics, /healthz, /readyz and /rules are at EXTAUTH_ADMIN_LISTEN; `extauth check` makes calls to this port.\n"
)
NOT_HTTP2: Final = (
    b"HTTP/1.1 415 Unsupported Media Type\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_NOT_HTTP2_TEXT), _NOT_HTTP2_TEXT)
)


def is_http1(data: bytes) -> bool:
    """Whether the client uses HTTP/1, which is answered by NOT_HTTP2."""
    return data.startswith(_HTTP1)


def begins(data: bytes) -> bool:
    """Whether this is the fixed text of HTTP/2, or its beginning."""
    return PREFACE.startswith(data[: len(PREFACE)])


def has_settings(data: bytes) -> bool:
    """Whether the head of the frame after the fixed text has come; raises H2Error if it is not of SETTINGS."""
    if len(data) < len(PREFACE) + HEAD.size:
        return False
    _, _, kind, flags, _ = HEAD.unpack_from(data, len(PREFACE))
    if kind != frames.SETTINGS or flags & ACK:
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
    return True


def greeting(max_streams: int) -> bytes:
    """Our SETTINGS."""
    return frames.settings(
        {
            frames.SETTINGS_MAX_CONCURRENT_STREAMS: max_streams,
            # More than our limit: above that, calls are answered OVER_LIMIT, but above this a client fails them itself.
            frames.SETTINGS_MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
        }
    )
