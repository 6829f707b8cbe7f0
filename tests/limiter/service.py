"""Planner, limiter, counters and encoder, asked one call at a time."""

from collections import Counter
from typing import Any

from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse

from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Counters
from extauth.limiter.failure import LocalCounting
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.rls.response import ResponseHeaders
from extauth.rules.model import OnStoreFailure
from tests.support.clock import Clock
from tests.support.service import decider_of


def descriptor(*entries: str, **more: Any) -> RateLimitDescriptor:  # noqa: ANN401
    """`key=value` an entry."""
    pairs = (entry.partition("=") for entry in entries)
    return RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key=k, value=v) for k, _, v in pairs], **more)


class Service:
    """Planner, limiter, counters and encoder, as the app puts them together."""

    def __init__(
        self,
        rules: str,
        modes: GlobalModes = NO_MODES,
        *,
        headers: ResponseHeaders | None = None,
        counters: Counters | None = None,
        on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL,
        local: LocalCounting | None = None,
    ) -> None:
        self.clock = Clock()
        options = LimiterOptions(modes=modes, response_headers=headers, on_store_failure=on_store_failure, local=local)
        decider = decider_of(
            "domain: d\n" + rules, MemoryCounters(self.clock) if counters is None else counters, options
        )
        self.planner, self.limiter, self.answers = decider

    async def ask(self, *descriptors: str | RateLimitDescriptor, hits: int = 0) -> RateLimitResponse:
        """One call; a descriptor given as text is one of that entry."""
        each = [descriptor(d) if isinstance(d, str) else d for d in descriptors]
        message = bytes(RateLimitRequest(domain="d", descriptors=each, hits_addend=hits))
        decided = await self.limiter.decide(Counter([self.planner.plan(message)]))
        (encoded,) = self.answers.encode_all(decided.groups)
        answer = encoded if isinstance(encoded, bytes) else next(encoded)
        assert isinstance(answer, bytes)
        return RateLimitResponse.parse(answer)

    async def codes(self, *descriptors: str | RateLimitDescriptor, calls: int, hits: int = 0) -> list[int]:
        return [int((await self.ask(*descriptors, hits=hits)).overall_code) for _ in range(calls)]


def rule(key: str, requests: int, more: str = "", limit: str = "") -> str:
    return f"\n- {{key: {key}, rate_limit: {{unit: day, requests_per_unit: {requests}{limit}}}{more}}}"
