"""The messages of the xDS protocol, state of the world (`envoy.service.discovery.v3`)."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from extauth.config.sources.wire import fields_of
from extauth.rls.protobuf import bytes_field, number_field, struct, text_field, text_of

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
TYPE: Final = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
MAX_RESOURCES: Final = 100_000
MAX_FIELDS: Final = MAX_RESOURCES + 100
INVALID_ARGUMENT: Final = 3
"""The `google.rpc.Code` of a refusal."""

# Tags of a response: a field's number times 8, plus its wire type.
_VERSION, _RESOURCE, _TYPE_URL, _NONCE = 0x0A, 0x12, 0x22, 0x2A


class Resource(NamedTuple):
    """A `google.protobuf.Any`: a message's type and bytes."""

    type_url: str
    value: bytes


class Response(NamedTuple):
    """A `DiscoveryResponse`: all resources of a type there are, in any order. Version and nonce are texts, as sent."""

    version: bytes
    nonce: bytes
    type_url: str
    resources: tuple[Resource, ...]


def encode_request(
    node: bytes, *, version: bytes = b"", nonce: bytes = b"", refusal: tuple[int, str] | None = None
) -> bytes:
    """A `DiscoveryRequest` for all rate limit configs, of an encoded node.

    The first one on a stream has no version and no nonce. A later one accepts the response of this version and nonce,
    or with a code and a text, which become a `google.rpc.Status`, refuses it.
    """
    parts = [_text(1, version), bytes_field(2, node), text_field(4, TYPE), _text(5, nonce)]
    if refusal is not None:
        code, text = refusal
        parts.append(bytes_field(6, number_field(1, code) + bytes_field(2, text.encode("utf-8", "backslashreplace"))))
    return b"".join(parts)


def _text(field: int, value: bytes) -> bytes:
    return bytes_field(field, value) if value else b""


def encode_node(name: str, metadata: Mapping[str, str]) -> bytes:
    """An `envoy.config.core.v3.Node` of this ID."""
    return text_field(1, name) + (bytes_field(3, struct(metadata)) if metadata else b"")


def encode_response(resources: Iterable[bytes]) -> bytes:
    """A `DiscoveryResponse` of rate limit configs, to be kept in a file."""
    kind = text_field(1, TYPE)
    encoded = [bytes_field(2, kind + bytes_field(2, value)) for value in resources]
    return b"".join([*encoded, text_field(4, TYPE)])


def decode_response(message: bytes) -> Response:
    """Read a `DiscoveryResponse`; raises InvalidRequestError."""
    texts = {_VERSION: b"", _TYPE_URL: b"", _NONCE: b""}
    resources = []
    for tag, at, end in fields_of(message, 0, len(message), MAX_FIELDS):
        if tag == _RESOURCE:
            resources.append(_resource(message, at, end))
        elif tag in texts:
            texts[tag] = message[at:end]
    return Response(texts[_VERSION], texts[_NONCE], text_of(texts[_TYPE_URL]), tuple(resources))


def type_of(message: bytes) -> str:
    """The type of the resources of a `DiscoveryResponse`, empty where it names none; raises InvalidRequestError."""
    type_url = b""
    for tag, at, end in fields_of(message, 0, len(message), MAX_FIELDS):
        if tag == _TYPE_URL:
            type_url = message[at:end]
    return text_of(type_url)


def _resource(message: bytes, at: int, end: int) -> Resource:
    type_url, value = "", b""
    for tag, begin, stop in fields_of(message, at, end, MAX_RESOURCES):
        if tag == _VERSION:  # fields 1 and 2 here, as there
            type_url = text_of(message[begin:stop])
        elif tag == _RESOURCE:
            value = message[begin:stop]
    return Resource(type_url, value)
