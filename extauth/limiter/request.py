"""The request as frozen values: what `RateLimitRequest` says, whatever decoded it."""

from dataclasses import dataclass
from typing import NamedTuple


class Entry(NamedTuple):
    """One (key, value) of a descriptor; `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry`.

    Bytes that are not UTF-8 stand in it as surrogate escapes (PEP 383).
    """

    key: str
    value: str


Descriptor = tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """`envoy.service.ratelimit.v3.RateLimitRequest`; `hits_addend` is at least 1."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    hits_addend: int = 1
