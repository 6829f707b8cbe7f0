"""No call fails because the connection that it is on has become too old: real clients, a real service, under load."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from pathlib import Path

import grpc
import grpc.aio
import pytest
from click.testing import CliRunner
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.cli import app
from extauth.rls.request import SERVICE
from tests.commands.test_init import running_envoy
from tests.integration.store_service import call
from tests.support.codes import OK
from tests.support.ports import free_port
from tests.support.process import Served
from tests.support.proxy import Proxy
from tests.support.wait import until_async
from tests.transport.engines import ENGINES

CONNECTIONS = 4


@pytest.fixture(params=ENGINES)
async def proxy(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Proxy]:
    """Leads to a service whose connections live for about a second, on each engine, and counts them."""
    (short_path / "d.yaml").write_text("domain: d\n")
    settings = {
        "EXTAUTH_REDIS_URL": "memory:",
        "EXTAUTH_ENGINE": request.param,
        "EXTAUTH_MAX_CONNECTION_AGE": "1",
    }
    served = Served(short_path, short_path / "d.yaml", settings=settings)
    served.until_ready()
    async with Proxy(short_path / "p", short_path / "grpc") as proxy:
        yield proxy
    served.stop()


async def test_a_grpc_client_loses_no_call(proxy: Proxy) -> None:
    answers: Counter[int] = Counter()
    async with grpc.aio.insecure_channel(f"unix:{proxy.address}") as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")

        async def calls() -> None:
            while proxy.connections < CONNECTIONS:
                answer = RateLimitResponse.parse(await ask(call("k"), timeout=20))
                answers[int(answer.overall_code)] += 1

        await asyncio.gather(*(calls() for _ in range(8)))
    assert set(answers) == {OK}


@pytest.mark.parametrize("proxy", ["h2"], indirect=True)  # gRPC's own end of a connection has cost Envoy a call
async def test_envoy_loses_no_call(proxy: Proxy, short_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(short_path / "init")]).exit_code == 0
    envoy = short_path / "init/envoy.yaml"
    text = envoy.read_text()
    ports = {default: free_port() for default in (10000, 10001)}
    replaced = {f"port_value: {default} ": f"port_value: {port} " for default, port in ports.items()} | {
        "socket_address: { address: 127.0.0.1, port_value: 8081 }": f"pipe: {{ path: {short_path}/p }}",
        "failure_mode_deny: false": "failure_mode_deny: true",  # so that a call that fails shows
        "timeout: 0.25s": "timeout: 20s",
    }
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    envoy.write_text(text)
    statuses: Counter[int] = Counter()

    def gets() -> None:
        connection = HTTPConnection("127.0.0.1", ports[10000], timeout=30)
        while proxy.connections < CONNECTIONS:
            connection.request("GET", "/")
            with connection.getresponse() as response:
                response.read()
                statuses[response.status] += 1
        connection.close()

    def listens() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", ports[10000]), 10):
                return True
        except OSError:
            return False

    with running_envoy(envoy):
        await until_async(lambda: asyncio.to_thread(listens), every_s=0.05)
        await asyncio.gather(*(asyncio.to_thread(gets) for _ in range(4)))
    assert set(statuses) == {200}
