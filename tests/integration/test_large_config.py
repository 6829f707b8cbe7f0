"""Reloads of very many rules."""

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from bench.large import MeasuredLoop, reloaded, write_rules
from extauth.app import Service
from extauth.config.many_objects import free_kept_objects
from extauth.config.sources.reader import read_apart
from extauth.core import Core
from extauth.parts import MANY_RULES
from extauth.rules.model import RuleSet
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


def test_nothing_stays_of_rules_that_were_replaced(tmp_path: Path) -> None:
    def rules(requests: int) -> RuleSet:
        write_rules(tmp_path, MANY_RULES, 1, requests)
        return read_apart(tmp_path, RuleSet(), merge=False)

    async def blocks_after_reloads() -> list[int]:
        core = Core(Settings.model_validate({"redis_url": "memory:", "config": tmp_path}), rules(1))
        blocks = []
        for requests in range(2, 7):
            await core.take_rules(await asyncio.to_thread(rules, requests))
            blocks.append(sys.getallocatedblocks())
        free_kept_objects()
        return [*blocks, sys.getallocatedblocks()]

    try:
        first, *_, last, after = asyncio.run(blocks_after_reloads())
    finally:
        gc.unfreeze()
    assert last - first < MANY_RULES / 5, "less than one object for each of the rules of four reloads"
    assert last - after < MANY_RULES / 5, "which Python keeps to use them again"
