"""Calls to a running service."""

import grpc

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.process import Served

KEY = "api_key=a-key-nobody-may-see"


def call(served: Served, calls: int, *descriptors: str) -> None:
    """Make equal calls, one after the other."""
    message = encode_request("api", tuple(map(read_descriptor, descriptors)))
    with grpc.insecure_channel(served.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )
        for _ in range(calls):
            ask(message)
