"""Each gRPC engine on a Unix socket, with counters that can wait and fail, and a grpcio client."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, TakeResult
from extauth.rls.request import SERVICE
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Batcher
from extauth.transport.engine import ConnectionLimits, EngineContext, Guard
from extauth.transport.grpcio import GrpcioServer
from extauth.transport.h2.server import H2Server
from tests.support.clock import Clock
from tests.support.facts import Recorded
from tests.support.service import decider_of

METHOD = f"/{SERVICE}/ShouldRateLimit"
CONFIG = """
domain: api
algorithm: gcra
descriptors: [{key: api_key, value: k, rate_limit: {unit: minute, requests_per_unit: 10}}]
"""
ENGINES: dict[str, type[GrpcioServer | H2Server]] = {"h2": H2Server, "grpcio": GrpcioServer}


def call(*entries: tuple[str, str], domain: str = "api", hits: int = 0) -> bytes:
    descriptors = [RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key=k, value=v)]) for k, v in entries]
    return bytes(RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits))


class Switched(MemoryCounters):
    """Counters that wait while they are held, and fail while they are broken."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.error: Exception | None = None

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        self.asked.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return await super().take(groups)


class Engine:
    """An engine on a Unix socket, its counters, and a client."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        policy: OnStoreFailure = OnStoreFailure.ERROR,
        *,
        traced: bool = False,
        reflection: bool = True,
        stall_timeout_s: float = 10,
    ) -> None:
        self.listen = f"unix:{folder}/grpc"
        self.counters = Switched()
        self.tripped: list[Guard] = []
        decider = decider_of(CONFIG, self.counters, LimiterOptions(on_store_failure=policy))
        self.limiter = decider.limiter
        self.recorded = Recorded()
        self.batcher = Batcher(decider, [self.recorded], max_in_flight=1, max_waiting=3)
        context = EngineContext(
            planner=decider.planner,
            batcher=self.batcher,
            limits=ConnectionLimits(stall_timeout_s=stall_timeout_s),
            on_guard=self.tripped.append,
            traced=traced,
            reflection=reflection,
        )
        self.server = ENGINES[kind](self.listen, context)
        self.channel = grpc.aio.insecure_channel(self.listen)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def waiting(self) -> int:
        """The number of calls that wait for a batch."""
        return 3 - self.batcher.room()

    @property
    def shed(self) -> list[tuple[str, bool]]:
        return [(fact.reason, fact.counting) for fact in self.recorded.shed]

    async def ask(
        self,
        message: bytes,
        method: str = METHOD,
        *,
        timeout_s: float = 10,
        compression: grpc.Compression = grpc.Compression.NoCompression,
    ) -> RateLimitResponse:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return RateLimitResponse.parse(await ask(message, timeout=timeout_s, compression=compression))

    async def refused(self, message: bytes, method: str = METHOD) -> tuple[grpc.StatusCode, str | None]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.ask(message, method)
        return raised.value.code(), raised.value.details()

    async def status(self, service: str = "") -> int:
        response = await self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return int(response.status)
