"""What every gRPC engine does with calls that are large, or that wait for too long, or are too many."""

import asyncio

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.limiter.failure import FailurePolicy
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Shed
from extauth.transport.engine import Guard
from tests.support.codes import OK, OVER_LIMIT
from tests.transport.engines import METHOD, Engine, call


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
