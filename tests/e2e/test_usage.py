"""examples/usage: usage that is reported when the answer is complete is charged, through real Envoy."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse

from scripts.stack import Ports
from tests.e2e import lone_envoy
from tests.support.environ import INHERITED
from tests.support.stores import Store
from tests.support.wait import until_async

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "usage"


@dataclass
class Example:
    """The running example: its edge, and the service behind it."""

    edge: str
    service: str

    async def ask(self, caller: str) -> tuple[int, int]:
        """One request: its status, and what is left of the limit before its cost is known."""
        return await lone_envoy.ask(self.edge, "/", {"x-caller": caller})

    async def left(self, caller: str) -> int:
        """What is left, without taking any."""
        descriptor = RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key="caller", value=caller)], hits_addend=0)
        message = bytes(RateLimitRequest(domain="llm", descriptors=[descriptor]))
        async with grpc.aio.insecure_channel(self.service) as channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
            )
            return RateLimitResponse.parse(await ask(message, timeout=10)).statuses[0].limit_remaining


@pytest.fixture
def example(own_store: Store, short_path: Path, _programs: None) -> Iterator[Example]:
    ports = Ports.free(1)
    grpc_port, admin = ports.extauth[0].grpc, ports.extauth[0].admin
    env = {
        **INHERITED,
        "EXTAUTH_CONFIG": str(EXAMPLE / "descriptors.yaml"),
        "EXTAUTH_REDIS_URL": own_store.url,
        "EXTAUTH_REDIS_TIMEOUT": "10",
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{grpc_port}",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "EXTAUTH_DRAIN_DELAY": "0",
    }
    with (short_path / "out").open("wb") as log:
        service = subprocess.Popen([sys.executable, "-m", "extauth", "serve"], env=env, stdout=log, stderr=log)
    try:
        config = (EXAMPLE / "envoy.yaml").read_text()
        with lone_envoy.started(config, {8080: ports.edge, 8081: grpc_port, 8090: ports.echo}, short_path):
            yield Example(f"http://127.0.0.1:{ports.edge}", f"127.0.0.1:{grpc_port}")
    finally:
        service.terminate()
        service.wait(20)


async def test_usage_that_is_reported_with_the_answer_is_charged(example: Example) -> None:
    async def left(number: int) -> bool:
        return await example.left("ann") == number

    await until_async(lambda: lone_envoy.answers(example.edge, "/", {"x-caller": "warm-up"}))
    assert await example.ask("ann") == (200, 1000), "a check takes nothing"
    await until_async(lambda: left(400))
    assert await example.ask("ann") == (200, 400), "what is left is enough to begin"
    await until_async(lambda: left(0))
    assert await example.ask("ann") == (429, 0), "200 tokens in debt"
    assert await example.ask("bob") == (200, 1000)
