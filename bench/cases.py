"""What is asked: the messages, as Envoy sends them, and the header blocks around them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from jh2.hpack import Encoder

from extauth.rls.protobuf import bytes_field
from extauth.rls.request import SERVICE

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{SERVICE}/ShouldRateLimit"),
    (":authority", "ratelimit"),
    ("te", "trailers"),
    ("grpc-timeout", "60S"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "10.0.0.1"),
]


@dataclass(frozen=True)
class Case:
    """A way to ask: `keys` distinct API keys in random order (0: each call has one never seen before)."""

    name: str
    title: str
    keys: int = 1
    connections: int = 8
    streams: int = 100
    traced: bool = False
    denied: bool = False
    rules: int = 1
    domain: str = "api"


CASES = {
    case.name: case
    for case in (
        Case("hot", "hot key, 8 × 100"),
        Case("keys_1000", "1,000 keys, 8 × 100", keys=1_000),
        Case("keys_10000", "10,000 keys, 8 × 100", keys=10_000),
        Case("keys_100000", "100,000 keys, 8 × 100", keys=100_000),
        Case("keys_1000000", "1,000,000 keys, 8 × 100", keys=1_000_000),
        Case("first_seen", "every message first-seen, 8 × 100", keys=0),
        Case("denied", "10,000 keys, 90 % denied, 8 × 100", keys=10_000, denied=True),
        Case("traced", "headers that change every call, 8 × 100", traced=True),
        Case("one", "one call in flight", connections=1, streams=1),
        Case("rules_10", "10 rules, 10,000 keys", keys=10_000, rules=10),
        Case("rules_10000", "10,000 rules, 10,000 keys", keys=10_000, rules=10_000),
    )
}

PEER_CASES = {
    case.name: case
    for case in (
        Case("peers", "1,000 keys", keys=1_000),
        Case("exact", "one key over its limit", domain="exact"),
    )
}
"""What `bench.peers` asks of all services."""


def config(case: Case) -> str:
    """The rules for a case: one for any key, or one a key."""
    requests = 1 if case.denied else 1_000_000_000
    limit = f"rate_limit: {{unit: day, requests_per_unit: {requests}}}"
    rules = [f"  - {{key: api_key, value: key-{i:07}, {limit}}}" for i in range(case.rules if case.rules > 1 else 0)]
    rules.append(f"  - {{key: api_key, {limit}}}")
    return "\n".join(["domain: api", "algorithm: gcra", "labels: [path]", "descriptors:", *rules, ""])


def message(key: str, domain: str = "api") -> bytes:
    """A RateLimitRequest with the descriptors of envoy/envoy.yaml."""

    def descriptor(name: str, value: str) -> bytes:
        return bytes_field(2, bytes_field(1, bytes_field(1, name.encode()) + bytes_field(2, value.encode())))

    parts = (descriptor("api_key", key), descriptor("masked_remote_address", "127.0.0.1/32"), descriptor("path", "/"))
    return bytes_field(1, domain.encode()) + b"".join(parts)


def messages(case: Case, seed: int) -> Iterator[bytes]:
    """Messages without end."""
    random_ = random.Random(seed)
    if case.keys == 0:
        while True:
            yield message(f"new-{random_.getrandbits(64):016x}")
    if case.keys <= 100_000:
        known = [message(f"key-{i:07}", case.domain) for i in range(case.keys)]
        while True:
            yield random_.choice(known)
    while True:
        yield message(f"key-{random_.randrange(case.keys):07}")


def blocks(case: Case, seed: int) -> Iterator[bytes]:
    """A connection's header blocks without end, as Envoy encodes them: with Huffman coding, all of it indexed."""
    encoder = Encoder()
    usual = [(name.encode(), value.encode(), False) for name, value in HEADERS]
    yield encoder.encode(usual, True)
    if not case.traced:
        repeated = encoder.encode(usual, True)
        while True:
            yield repeated
    random_ = random.Random(seed)
    while True:
        trace = f"00-{random_.getrandbits(128):032x}-{random_.getrandbits(64):016x}-01"
        request_id = f"{random_.getrandbits(128):032x}"
        changing = [(b"x-request-id", request_id.encode(), False), (b"traceparent", trace.encode(), False)]
        yield encoder.encode(usual + changing, True)
