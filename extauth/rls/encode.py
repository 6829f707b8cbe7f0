"""A `RateLimitRequest` as Envoy writes it."""

from collections.abc import Sequence

from extauth.rls.protobuf import bytes_field, number_field
from extauth.rls.request import Descriptor


def encode_request(domain: str, descriptors: Sequence[Descriptor], hits: int = 0) -> bytes:
    """The bytes that `split_request` and `decode_descriptor` read. `hits` of 0 are left to the server: it takes 1."""
    encoded = b"".join(bytes_field(2, _descriptor(descriptor)) for descriptor in descriptors)
    return bytes_field(1, _bytes(domain)) + encoded + number_field(3, hits)


def _descriptor(descriptor: Descriptor) -> bytes:
    message = b"".join(
        bytes_field(1, bytes_field(1, _bytes(key)) + bytes_field(2, _bytes(value))) for key, value in descriptor.entries
    )
    if descriptor.limit is not None:
        requests, unit = descriptor.limit
        message += bytes_field(2, number_field(1, requests) + number_field(2, unit.number))
    if descriptor.hits_addend is not None:
        message += bytes_field(3, number_field(1, descriptor.hits_addend))
    return message + number_field(4, descriptor.is_negative_hits)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
