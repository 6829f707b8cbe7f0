"""The messages of the xDS protocol, state of the world (`envoy.service.discovery.v3`)."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from extauth.errors import InvalidRequestError
from extauth.rls.protobuf import all_fields, bytes_field, number_field, struct, text_field, text_of

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
TYPE: Final = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
MAX_RESOURCES: Final = 100_000
INVALID_ARGUMENT: Final = 3
"""The `google.rpc.Code` of a refusal."""

_MAX_FIELDS: Final = MAX_RESOURCES + 100


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
    texts = {1: b"", 4: b"", 5: b""}
    resources = []
    for number, value in all_fields(message, _MAX_FIELDS):
        if isinstance(value, bytes):
            if number == 2:
                resources.append(_resource(value))
            elif number in texts:
                texts[number] = value
    if len(resources) > MAX_RESOURCES:
        raise InvalidRequestError(f"more than {MAX_RESOURCES} resources in a response")
    return Response(texts[1], texts[5], text_of(texts[4]), tuple(resources))


def _resource(message: bytes) -> Resource:
    type_url, value = "", b""
    for number, part in all_fields(message, _MAX_FIELDS):
        if isinstance(part, bytes):
            if number == 1:
                type_url = text_of(part)
            elif number == 2:
                value = part
    return Resource(type_url, value)
