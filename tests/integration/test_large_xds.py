"""A change of very many rules by xDS, beside calls that are under way."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

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


def small(number: int, requests: int) -> dict[str, Any]:
    limit = {"unit": "hour", "requests_per_unit": requests}
    return {"domain": f"default/eg-{number}/http", "descriptors": [{"key": f"k{number}", "rate_limit": limit}]}


LARGE = [[domain(number, requests) for number in range(DOMAINS)] for requests in (1, 2)]
MANY = [[small(number, requests) for number in range(first, first + 20_000)] for requests, first in ((1, 0), (2, 5000))]
"""All domains change, some are gone, and some are new."""


@pytest.mark.parametrize(("first", "second"), [LARGE, MANY], ids=["large", "many"])
def test_no_turn_of_the_event_loop_is_long_when_rules_come(
    short_path: Path, xds: GoXds, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    settings = {
        "redis_url": "memory:",
        "config": f"xds://{xds.address}",
        "xds_node_id": NODE,
        "config_cache": short_path / "cache",
        "grpc_listen": f"unix:{short_path}/grpc",
        "admin_listen": f"127.0.0.1:{free_port()}",
    }
    service = Service(Settings.model_validate(settings))

    async def change() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MeasuredLoop)
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

    with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
        runner.run(change())
