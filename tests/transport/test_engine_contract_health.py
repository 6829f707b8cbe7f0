"""What every gRPC engine tells those who check and watch its health."""

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from extauth.rls.request import SERVICE
from tests.support.codes import OK
from tests.transport.engines import Engine, call


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
