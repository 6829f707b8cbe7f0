"""A change of very many rules by xDS, beside calls that are under way."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bench.large import MeasuredLoop
from bench.xds_rules import DOMAINS, domain
from extauth.app import Service
from extauth.settings import Settings
from tests.support.go_xds import NODE, GoXds
from tests.support.ports import free_port
from tests.support.wait import until_async

MOST_S = 0.005


@pytest.fixture
def xds() -> Iterator[GoXds]:
    server = GoXds()
    yield server
    server.stop()


def test_no_turn_of_the_event_loop_is_long_when_rules_come(short_path: Path, xds: GoXds) -> None:
    settings = {
        "redis_url": "memory:",
        "config": f"xds://{xds.address}",
        "xds_node_id": NODE,
        "config_cache": short_path / "cache",
        "grpc_listen": f"unix:{short_path}/grpc",
        "admin_listen": f"127.0.0.1:{free_port()}",
    }
    service = Service(Settings.model_validate(settings))
    loop = MeasuredLoop()
    first, second = ([domain(number, requests) for number in range(DOMAINS)] for requests in (1, 2))

    async def change() -> None:
        async with AsyncExitStack() as stack:
            xds.push("1", *first)
            await service.start(stack)
            assert service.planner.matcher.size > 12_800
            before = service.planner.matcher
            await asyncio.to_thread(xds.answer_to, "1")
            await asyncio.sleep(0.1)  # so that what came before is in a turn that does not count
            loop.longest_s = 0.0
            await asyncio.to_thread(xds.push, "2", *second)
            await asyncio.to_thread(xds.answer_to, "2")
            await until_async(lambda: service.planner.matcher is not before, every_s=0.02)
            longest_s = loop.longest_s
        assert longest_s < MOST_S

    try:
        loop.run_until_complete(change())
    finally:
        loop.close()
