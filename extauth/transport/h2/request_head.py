"""Header blocks as heads of gRPC calls: RFC 9113 §8.2 and §8.3, and gRPC over HTTP/2."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from extauth.rls.request import SERVICE
from extauth.rls.trace_context import TraceParent, may_be_sampled, sampled_parent
from extauth.transport import reflection
from extauth.transport.deadlines import deadline_after_s
from extauth.transport.h2.grpc_framing import ENCODINGS, Status, refusal_block

HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_ECHO = 100  # characters from the client that an answer repeats: each may become six bytes
_REFLECTION, _REFLECTION_ALPHA = reflection.SERVICES

Fields = list[tuple[bytes, bytes, bool]]

_GRPC = b"application/grpc"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_TIMEOUT_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_CONNECTION_SPECIFIC = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))


class Method(Enum):
    """The methods that are served, and any other."""

    SHOULD_RATE_LIMIT = f"/{SERVICE}/ShouldRateLimit"
    HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
    HEALTH_WATCH = f"/{HEALTH_SERVICE}/Watch"
    REFLECTION = f"/{_REFLECTION}/{reflection.METHOD}"
    REFLECTION_ALPHA = f"/{_REFLECTION_ALPHA}/{reflection.METHOD}"
    UNKNOWN = "unknown"


REFLECTION_METHODS = frozenset((Method.REFLECTION, Method.REFLECTION_ALPHA))
_METHODS = {method.value.encode(): method for method in Method if method is not Method.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, or trailers.

    `malformed` says what is wrong with it as HTTP, `refusal` why it is no gRPC call as (HTTP status, text).
    `deadline_after_s` is the time from its arrival to the call's deadline, None without a grpc-timeout;
    `encoding` is the value of grpc-encoding. `oversized`: its list is larger than the limit. `plain`: an ordinary
    ShouldRateLimit call. `parent` is the caller's span, where calls are traced and it is recorded.
    """

    malformed: str = ""
    is_trailers: bool = False
    refusal: tuple[int, str] | None = None
    method: Method = Method.UNKNOWN
    path: str = ""
    deadline_after_s: float | None = None
    encoding: str = "identity"
    content_length: int | None = None
    oversized: bool = False
    plain: bool = False
    parent: TraceParent | None = None

    @property
    def limits(self) -> bool:
        """Whether it is a rate limit call, so that a refusal would let a request pass."""
        return self.method is Method.SHOULD_RATE_LIMIT and self.refusal is None and not self.malformed


class _MalformedError(Exception):
    """It is no HTTP/2 request."""


class _RefusedError(Exception):
    """It is no gRPC call: (HTTP status, text)."""


def read_head(fields: Fields, *, traced: bool = False) -> Head:
    """Read a decoded header block, with `traced` its `parent` too; never raises."""
    try:
        pseudo, regular = _split(fields)
        content_length = _content_length(regular)
        if not pseudo:
            return Head(is_trailers=True, content_length=content_length)
        try:
            parent = _parent(regular, fields) if traced else None
            return _read_call(pseudo, regular, content_length, parent)
        except _RefusedError as refused:
            status, text = refused.args
            return Head(refusal=(status, text), content_length=content_length)
    except _MalformedError as malformed:
        return Head(malformed=str(malformed))


def read_oversized(fields: Fields) -> Head:
    """Read only the pseudo-headers, which come first, of a list that is larger than the limit; never raises."""
    path = b""
    for name, value, _ in fields:
        if name[:1] != b":":
            break
        if name == b":path":
            path = value
    if not path:
        return Head(is_trailers=True, oversized=True)
    return Head(method=_METHODS.get(path, Method.UNKNOWN), path=path.decode("latin-1"), oversized=True)


def _parent(regular: dict[bytes, bytes], fields: Fields) -> TraceParent | None:
    last = regular.get(b"traceparent")
    if last is None or not may_be_sampled(last):
        return None
    traceparent = [value for name, value, _ in fields if name == b"traceparent"]
    return sampled_parent(traceparent, [value for name, value, _ in fields if name == b"tracestate"])


def _split(fields: Fields) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The pseudo-headers, and the others (RFC 9113 §8.2 and §8.3)."""
    # RFC 9113 §8.2.1 forbids white space at the ends as well. Envoy takes it from its clients and passes it on, in a
    # `tracestate` for example, so refusing it would let such clients pass.
    values = b"".join([value for _, value, _ in fields])
    if b"\n" in values or b"\r" in values or b"\x00" in values:
        raise _MalformedError("header value not allowed")
    pseudo: dict[bytes, bytes] = {}
    regular: dict[bytes, bytes] = {}
    for name, value, _ in fields:
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO:
                raise _MalformedError("pseudo-header unknown, repeated or out of place")
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
            raise _MalformedError("header not allowed in HTTP/2")
        elif name == b"content-length" and regular.get(name, value) != value:
            raise _MalformedError("two values of content-length")
        else:
            regular[name] = value
    return pseudo, regular


def _content_length(regular: dict[bytes, bytes]) -> int | None:
    value = regular.get(b"content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise _MalformedError("content-length is no number")
    return int(value)


@lru_cache(maxsize=64)  # a client has few timeouts, and sends them with each call
def _deadline_after_s(timeout: bytes) -> float:
    """The time to the deadline for this value of grpc-timeout."""
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise _RefusedError(400, "grpc-timeout is malformed")
    return deadline_after_s(int(match[1]) * _TIMEOUT_UNITS_S[match[2]])


def _read_call(
    pseudo: dict[bytes, bytes], regular: dict[bytes, bytes], content_length: int | None, parent: TraceParent | None
) -> Head:
    if pseudo.get(b":method") == b"CONNECT":
        raise _RefusedError(405, "this is a gRPC server; CONNECT is not served")
    if not (pseudo.get(b":method") and pseudo.get(b":scheme") and pseudo.get(b":path")):
        raise _MalformedError(":method, :scheme or :path is missing")
    content_type = regular.get(b"content-type", b"").lower()
    if content_type != _GRPC and not content_type.startswith((_GRPC + b"+", _GRPC + b";")):
        raise _RefusedError(415, "this is a gRPC server; content-type must be application/grpc")
    if pseudo[b":method"] != b"POST":
        raise _RefusedError(405, "gRPC calls are POST requests")
    timeout = regular.get(b"grpc-timeout")
    after_s = None if timeout is None else _deadline_after_s(timeout)
    path = pseudo[b":path"]
    method = _METHODS.get(path, Method.UNKNOWN)
    encoding = regular.get(b"grpc-encoding", b"identity").decode("latin-1")
    return Head(
        method=method,
        path=path.decode("latin-1"),
        deadline_after_s=after_s,
        encoding=encoding,
        content_length=content_length,
        plain=method is Method.SHOULD_RATE_LIMIT and encoding in ENCODINGS,
        parent=parent,
    )


def unserved(head: Head, *, reflects: bool) -> bytes | None:
    """The header block of the answer to a call that can be refused before it is whole; None for other calls."""
    if head.refusal is not None:  # clients of plain HTTP may not read an answer before their request is sent
        return None
    if head.method is Method.UNKNOWN or (head.method in REFLECTION_METHODS and not reflects):
        return refusal_block(Status.UNIMPLEMENTED, f"no such method: {head.path[:MAX_ECHO]}")
    if head.encoding not in ENCODINGS:
        accepted = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
        return refusal_block(Status.UNIMPLEMENTED, f"grpc-encoding {head.encoding[:MAX_ECHO]} is not served", accepted)
    return None
