"""A reload of very many rules, beside calls that are under way."""

from contextlib import AsyncExitStack
from pathlib import Path

from bench.large import MeasuredLoop, reloaded, write_rules
from extauth.app import Service
from extauth.settings import Settings
from tests.support.ports import free_port

RULES = 30_000
MOST_S = 0.005


def test_no_turn_of_the_event_loop_is_long_when_rules_are_swapped(tmp_path: Path) -> None:
    write_rules(tmp_path, RULES, 1, 1)
    settings = {"redis_url": "memory:", "config": tmp_path, "grpc_listen": f"unix:{tmp_path}/grpc"}
    service = Service(Settings.model_validate({**settings, "admin_listen": f"127.0.0.1:{free_port()}"}))
    loop = MeasuredLoop()

    async def reload() -> None:
        async with AsyncExitStack() as stack:
            await service.start(stack)
            await loop.run_in_executor(None, write_rules, tmp_path, RULES, 1, 2)
            loop.longest_s = 0.0
            await reloaded(service)
            assert service.planner.matcher.size == RULES
            longest_s = loop.longest_s
        assert longest_s < MOST_S

    try:
        loop.run_until_complete(reload())
    finally:
        loop.close()
