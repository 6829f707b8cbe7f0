"""What every gRPC engine does, seen by a grpcio client: calls are decided, refused, and answered to the end."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from extauth.errors import SettingsError, StoreError
from extauth.rls.request import SERVICE
from extauth.transport.engine import Guard
from tests.support.codes import OK, OVER_LIMIT
from tests.transport.engines import ENGINES, Engine, call


async def test_it_decides(engine: Engine) -> None:
    codes = [(await engine.ask(call(("api_key", "k")))).overall_code for _ in range(11)]
    assert codes == [OK] * 10 + [OVER_LIMIT]


async def test_concurrent_calls_admit_exactly_the_limit(engine: Engine) -> None:
    clients = asyncio.Semaphore(3)  # no more may wait

    async def ask(hits: int) -> int:
        async with clients:
            return int((await engine.ask(call(("api_key", "k"), hits=hits))).overall_code)

    assert sorted(await asyncio.gather(*map(ask, [1, 0] * 50))) == [1] * 10 + [2] * 90


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
