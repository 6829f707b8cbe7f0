"""The request as frozen values: what `RateLimitRequest` says, whatever decoded it."""

from typing import NamedTuple


class Entry(NamedTuple):
    """One (key, value) of a descriptor; `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry`.

    Bytes that are not UTF-8 stand in it as surrogate escapes (PEP 383).
    """

    key: str
    value: str


Descriptor = tuple[Entry, ...]


class Request(NamedTuple):
    """`envoy.service.ratelimit.v3.RateLimitRequest`, its descriptors still encoded; `hits_addend` is at least 1."""

    domain: str
    descriptors: list[bytes]
    hits_addend: int = 1
