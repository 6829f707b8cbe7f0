"""The request as frozen values: what `RateLimitRequest` says, whatever decoded it."""

from typing import NamedTuple

from extauth.rules.model import Unit


class Entry(NamedTuple):
    """One (key, value) of a descriptor; `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry`.

    Bytes that are not UTF-8 stand in it as surrogate escapes (PEP 383).
    """

    key: str
    value: str


class Override(NamedTuple):
    """`RateLimitDescriptor.RateLimitOverride`: a limit that the request brings with it."""

    requests_per_unit: int
    unit: Unit


class Descriptor(NamedTuple):
    """`RateLimitDescriptor`.

    `hits_addend` is None where the request's own counts; `is_negative_hits` gives hits back instead of taking them.
    """

    entries: tuple[Entry, ...]
    limit: Override | None = None
    hits_addend: int | None = None
    is_negative_hits: bool = False


class Request(NamedTuple):
    """`envoy.service.ratelimit.v3.RateLimitRequest`, its descriptors still encoded; `hits_addend` is at least 1."""

    domain: str
    descriptors: list[bytes]
    hits_addend: int = 1
