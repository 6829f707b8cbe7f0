"""What every gRPC engine does, seen by a grpcio client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.counters.memory import MemoryCounters
from extauth.errors import SettingsError, StoreError
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, TakeResult
from extauth.limiter.failure import FailurePolicy
from extauth.rls.request import SERVICE
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Batcher, Shed
from extauth.transport.engine import EngineContext, Guard
from extauth.transport.grpcio import GrpcioServer
from extauth.transport.h2.server import H2Server
from tests.support.clock import Clock
from tests.support.codes import OK, OVER_LIMIT
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
        self, kind: str, folder: Path, policy: OnStoreFailure = OnStoreFailure.ERROR, *, traced: bool = False
    ) -> None:
        self.listen = f"unix:{folder}/grpc"
        self.counters = Switched()
        self.tripped: list[Guard] = []
        decider = decider_of(CONFIG, self.counters, LimiterOptions(on_store_failure=policy))
        self.limiter = decider.limiter
        self.recorded = Recorded()
        self.batcher = Batcher(decider, [self.recorded], max_in_flight=1, max_waiting=3)
        context = EngineContext(
            planner=decider.planner, batcher=self.batcher, on_guard=self.tripped.append, traced=traced
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


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(request.param, short_path)
    await engine.server.start()
    yield engine
    await engine.channel.close()
    await engine.server.stop(0)


async def test_it_decides(engine: Engine) -> None:
    codes = [(await engine.ask(call(("api_key", "k")))).overall_code for _ in range(11)]
    assert codes == [OK] * 10 + [OVER_LIMIT]


async def test_concurrent_calls_admit_exactly_the_limit(engine: Engine) -> None:
    clients = asyncio.Semaphore(3)  # no more may wait

    async def ask(hits: int) -> int:
        async with clients:
            return int((await engine.ask(call(("api_key", "k"), hits=hits))).overall_code)

    assert sorted(await asyncio.gather(*map(ask, [1, 0] * 50))) == [1] * 10 + [2] * 90


async def test_messages_may_be_compressed(engine: Engine) -> None:
    message = call(("api_key", "k"), ("other", "x" * 1000))
    answer = await engine.ask(message, compression=grpc.Compression.Gzip)
    assert [status.limit_remaining for status in answer.statuses] == [9, 0]


async def test_large_answers_arrive(engine: Engine) -> None:
    answer = await engine.ask(call(*([("api_key", "k")] + [("n", str(i)) for i in range(99)])))
    assert len(answer.statuses) == 100


async def test_past_the_bound_of_waiting_calls_new_ones_get_the_failure_policy_at_once(engine: Engine) -> None:
    engine.counters.open.clear()
    first = asyncio.create_task(engine.ask(call(("api_key", "k"))))
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    others = [asyncio.create_task(engine.ask(call(("api_key", "k")))) for _ in range(5)]
    done: set[asyncio.Task[RateLimitResponse]] = set()
    while len(done) < 2:
        more, _ = await asyncio.wait(set(others) - done, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert more
        done |= more
    for task in done:
        error = task.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert engine.shed == [(Shed.WAITING_CALLS, False)] * 2
    engine.limiter.policy = FailurePolicy(OnStoreFailure.DENY)
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OVER_LIMIT
    engine.limiter.policy = FailurePolicy(OnStoreFailure.ALLOW)
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK
    engine.counters.open.set()
    assert [a.overall_code for a in await asyncio.gather(first, *set(others) - done)] == [OK] * 4


async def test_before_its_timeout_a_call_gets_the_failure_policy_and_no_other_is_touched(engine: Engine) -> None:
    engine.limiter.policy = FailurePolicy(OnStoreFailure.DENY)
    engine.counters.open.clear()
    patient = asyncio.create_task(engine.ask(call(("api_key", "k"))))
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    waited = await engine.ask(call(("api_key", "k"), hits=5), timeout_s=1)
    assert waited.overall_code == OVER_LIMIT
    assert engine.shed == [(Shed.TIMEOUT, False)]
    engine.counters.open.set()
    assert (await patient).overall_code == OK
    left = (await engine.ask(call(("api_key", "k")))).statuses[0].limit_remaining
    assert left == 8, "what was answered while it waited is not counted"
    engine.counters.open.clear()
    engine.counters.asked.clear()
    counting = await engine.ask(call(("api_key", "k")), timeout_s=1)
    assert counting.overall_code == OVER_LIMIT
    assert engine.shed[1:] == [(Shed.TIMEOUT, True)]
    engine.counters.open.set()
    left = (await engine.ask(call(("api_key", "k")))).statuses[0].limit_remaining
    assert left == 6, "what was being counted is counted"


async def test_bytes_that_are_no_text_are_just_another_value(engine: Engine) -> None:
    message = call(("api_key", "k!")).replace(b"k!", b"k\xff")
    assert (await engine.ask(message)).overall_code == OK


async def test_what_cannot_be_understood_is_an_invalid_argument(engine: Engine) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert await engine.refused(b"\xff") == (invalid, "malformed message: it ends inside a number")
    assert await engine.refused(call(("a", "b"), domain="")) == (invalid, "the domain must not be empty")
    assert await engine.refused(call()) == (invalid, "at least one descriptor is needed")
    assert engine.tripped == [Guard.INVALID_CALL] * 3


async def test_what_is_not_there_is_unimplemented(engine: Engine) -> None:
    for method in (f"/{SERVICE}/Other", "/other.Service/ShouldRateLimit"):
        code, _ = await engine.refused(call(), method)
        assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_large_messages_are_decided_and_too_large_ones_denied(
    engine: Engine, compression: grpc.Compression
) -> None:
    """A path of 32 KB that two descriptors quote, up to 4 MiB: whoever is limited may choose how long it is."""
    for size, verdict in ((32_760, 1), (2_000_000, 1), (2_097_152, 2)):
        descriptors = [("api_key", "k"), ("path", "z" * size), ("path", "z" * size)]
        assert (await engine.ask(call(*descriptors), compression=compression)).overall_code == verdict
    assert engine.tripped == [Guard.MESSAGE]


async def test_more_descriptors_than_are_evaluated_are_denied(engine: Engine) -> None:
    many = [("n", str(i)) for i in range(101)]
    assert (await engine.ask(call(*many))).overall_code == OVER_LIMIT
    assert engine.tripped == [Guard.MESSAGE]


async def test_large_headers_are_decided_and_too_large_ones_denied(engine: Engine) -> None:
    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = engine.channel.unary_unary(METHOD)
    for size, verdict in ((61_440, 1), (200_000, 2), (1_000_000, 2)):
        answer = await ask(call(("api_key", "k")), timeout=10, metadata=(("tracestate", "x" * size),))
        assert RateLimitResponse.parse(answer).overall_code == verdict
    assert engine.tripped == [Guard.HEADERS] * 2


@pytest.mark.parametrize(
    ("sent", "status"), [(False, grpc.StatusCode.UNAVAILABLE), (True, grpc.StatusCode.DEADLINE_EXCEEDED)]
)
async def test_a_failing_store_fails_the_call_where_that_is_set(
    engine: Engine, sent: bool, status: grpc.StatusCode
) -> None:
    """Envoy may try again elsewhere what nothing can have counted, and nothing else."""
    engine.counters.error = StoreError("timeout", "", sent=sent)
    assert await engine.refused(call(("api_key", "k"))) == (status, "the counters' store does not answer")
    engine.counters.error = None
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK


async def test_health_is_serving_until_the_drain(engine: Engine) -> None:
    assert [await engine.status(service) for service in ("", SERVICE)] == [1, 1]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await engine.status("other")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    await engine.server.drain()
    assert [await engine.status(service) for service in ("", SERVICE)] == [2, 2]
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK, "calls are still answered"


async def test_health_checks_hear_what_is_reported_until_the_drain(engine: Engine) -> None:
    names = ("", SERVICE, "ratelimit", "extauth.store")
    assert [await engine.status(name) for name in names] == [1, 1, 1, 2]
    for serving, store in ((True, True), (False, False), (False, True), (True, False), (True, True)):
        await engine.server.report(serving=serving, store=store)
        assert [await engine.status(name) for name in names] == [1 if serving else 2] * 3 + [1 if store else 2]
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK
    await engine.server.drain()
    for _ in range(2):
        assert [await engine.status(name) for name in names] == [2] * 4
        await engine.server.report(serving=True, store=True)


async def test_those_who_watch_hear_each_change_once(engine: Engine) -> None:
    watched = [
        engine.health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)
        for name in ("", SERVICE, "extauth.store")
    ]

    async def hear(*at: int) -> list[int]:
        return [int((await watched[i].read()).status) for i in at]

    assert await hear(0, 1, 2) == [1, 1, 2]
    await engine.server.report(serving=False, store=False)
    assert await hear(0, 1) == [2, 2]
    await engine.server.report(serving=False, store=False)
    await engine.server.report(serving=False, store=True)
    assert await hear(2) == [1]
    await engine.server.report(serving=True, store=True)
    assert await hear(0, 1) == [1, 1]
    await engine.server.drain()
    assert await hear(0, 1, 2) == [2, 2, 2]
    for each in watched:
        each.cancel()


async def test_calls_in_flight_are_answered_when_it_stops(engine: Engine) -> None:
    engine.counters.open.clear()
    pending = asyncio.create_task(engine.ask(call(("api_key", "k"))))
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    stopping = asyncio.create_task(engine.server.stop(10))
    await asyncio.sleep(0)
    engine.counters.open.set()
    assert (await pending).overall_code == OK
    await stopping


async def test_a_caller_that_gives_up_harms_nobody(engine: Engine) -> None:
    engine.counters.open.clear()
    pending = asyncio.create_task(engine.ask(call(("api_key", "k"))))
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    pending.cancel()
    await asyncio.gather(pending, return_exceptions=True)
    engine.counters.open.set()
    assert (await engine.ask(call(("api_key", "k")))).overall_code == OK


@pytest.mark.parametrize("kind", ENGINES)
async def test_an_address_that_cannot_be_had_is_named(kind: str, short_path: Path) -> None:
    engine = Engine(kind, short_path / "missing")
    with pytest.raises(SettingsError, match=r"EXTAUTH_GRPC_LISTEN=unix:.*: cannot listen there"):
        await engine.server.start()
    await engine.channel.close()
