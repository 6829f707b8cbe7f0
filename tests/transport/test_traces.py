"""The calls whose traces are recorded, as every gRPC engine reports them: an unsampled caller's are not among them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest

from extauth.errors import StoreError
from extauth.limiter.counters import Source, Uncounted
from extauth.limiter.facts import BatchFact, SampledCall
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Shed
from tests.support.wait import until_async
from tests.transport.engines import ENGINES, METHOD, Engine, call

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def parent(number: int, *, flags: int = 1) -> TraceParent:
    return TraceParent(TRACE, f"{number:016x}", flags)


class Traced(Engine):
    """An engine that reads traces, and a client that has them."""

    async def ask_as(
        self, caller: TraceParent, message: bytes | None = None, *, timeout_s: float = 10, state: str | None = None
    ) -> None:
        """One call, whatever comes of it."""
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)
        metadata = [("traceparent", f"00-{caller.trace_id}-{caller.span_id}-{caller.flags:02x}")]
        if state is not None:
            metadata.append(("tracestate", state))
        with suppress(grpc.aio.AioRpcError):
            await ask(message or call(("api_key", "k")), timeout=timeout_s, metadata=tuple(metadata))

    async def batches(self, number: int) -> list[BatchFact]:
        """The facts of all batches, once there are so many: answers are written before."""
        await until_async(lambda: len(self.recorded.batches) >= number)
        return self.recorded.batches

    def sampled(self) -> list[SampledCall]:
        return [each for fact in self.recorded.batches for each in fact.sampled]


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Traced]:
    engine = Traced(request.param, short_path, traced=True)
    await engine.server.start()
    yield engine
    await engine.channel.close()
    await engine.server.stop(0)


async def test_sampled_calls_are_reported_with_their_answers_and_others_are_not(engine: Traced) -> None:
    for number in range(1, 13):
        await engine.ask_as(parent(number, flags=number % 2))
    facts = await engine.batches(12)
    assert [each.parent for each in engine.sampled()] == [parent(number) for number in range(1, 13, 2)]
    assert [each.code for each in engine.sampled()] == [Code.OK] * 5 + [Code.OVER_LIMIT]
    for fact in facts[::2]:
        (sampled,) = fact.sampled
        assert sampled.group is fact.groups[0]
        assert sampled.group.source is Source.STORE
        assert sampled.arrived == fact.arrivals[0][0]


async def test_each_of_equal_calls_in_a_batch_has_its_own_trace_and_answer(engine: Traced) -> None:
    engine.counters.open.clear()
    first = asyncio.create_task(engine.ask_as(parent(99), call(("api_key", "k"), hits=9)))
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    others = [asyncio.create_task(engine.ask_as(parent(number))) for number in range(1, 4)]
    await until_async(lambda: engine.waiting() == 3)
    engine.counters.open.set()
    await asyncio.gather(first, *others)
    await engine.batches(2)
    codes = {each.parent.span_id: each.code for each in engine.sampled()}
    assert codes.keys() == {parent(number).span_id for number in (1, 2, 3, 99)}
    assert sorted(code for code in codes.values() if code) == [Code.OK, Code.OK, Code.OVER_LIMIT, Code.OVER_LIMIT]
    assert len(engine.recorded.batches) == 2


@pytest.mark.parametrize("size", [10, 100_000], ids=["in one frame", "in many frames"])
async def test_the_state_comes_with_the_parent(engine: Traced, size: int) -> None:
    message = call(("api_key", "k"), ("path", "z" * size))
    await engine.ask_as(parent(1), message, state="vendor=1,other=2")
    await engine.batches(1)
    assert [each.parent for each in engine.sampled()] == [parent(1)._replace(state="vendor=1,other=2")]


async def test_a_caller_that_repeats_its_headers_is_reported_each_time(engine: Traced) -> None:
    for _ in range(5):
        await engine.ask_as(parent(7))
    await engine.batches(5)
    assert [each.parent for each in engine.sampled()] == [parent(7)] * 5


async def test_a_call_that_fails_has_no_code(engine: Traced) -> None:
    engine.counters.error = StoreError("timeout", "", sent=True)
    await engine.ask_as(parent(1))
    await engine.batches(1)
    (sampled,) = engine.sampled()
    assert (sampled.code, sampled.group.without_store) == (None, Uncounted.SENT)
    assert sampled.group.given is OnStoreFailure.ERROR


async def test_a_call_that_is_shed_is_reported_then_and_not_with_its_batch(engine: Traced) -> None:
    engine.counters.open.clear()
    await engine.ask_as(parent(1), timeout_s=1)
    engine.counters.open.set()
    await engine.batches(1)
    (shed,) = engine.recorded.shed
    assert (shed.reason, shed.counting) == (Shed.TIMEOUT, True)
    assert shed.sampled is not None
    assert (shed.sampled.parent, shed.sampled.code) == (parent(1), None)
    assert engine.sampled() == []


async def test_a_call_that_finds_no_room_is_reported(engine: Traced) -> None:
    engine.counters.open.clear()
    waiting = [asyncio.create_task(engine.ask_as(parent(100)))]
    await asyncio.wait_for(engine.counters.asked.wait(), 10)
    waiting += [asyncio.create_task(engine.ask_as(parent(number))) for number in range(3)]
    await until_async(lambda: engine.waiting() == 3)
    await engine.ask_as(parent(5))
    engine.counters.open.set()
    await asyncio.gather(*waiting)
    (shed,) = engine.recorded.shed
    assert shed.sampled is not None
    assert (shed.reason, shed.sampled.parent) == (Shed.WAITING_CALLS, parent(5))


@pytest.mark.parametrize("kind", list(ENGINES))
async def test_without_tracing_nothing_is_read(short_path: Path, kind: str) -> None:
    engine = Traced(kind, short_path)
    await engine.server.start()
    await engine.ask_as(parent(1))
    await engine.batches(1)
    assert engine.sampled() == []
    await engine.channel.close()
    await engine.server.stop(0)
