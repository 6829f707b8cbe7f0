"""Work in the background of the service."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from extauth.rules.matcher import Matcher
from extauth.telemetry.logs import logger


def keep_up(stack: AsyncExitStack, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` in the background until `stack` is taken down: an unexpected error is logged, and it begins anew."""

    async def run() -> None:
        while True:
            try:
                await work()
            except Exception:  # noqa: BLE001 - whatever it is, calls are served meanwhile
                logger().exception("background_work_failed", work=work.__name__)
            await asyncio.sleep(1)

    stack.push_async_callback(_cancel, asyncio.create_task(run()))


def free_rules(owned: list[Matcher], unused: list[dict[Any, Any]]) -> None:
    """Free rules that nobody uses any more, and that only the list `owned` holds, and empty tables that are not used.

    Bit by bit, for a thread: freed at once, 100,000 rules would keep the interpreter for a tenth of a second or more.
    """
    while owned:
        parts = owned.pop().parts()
        while parts:
            parts.pop()
    while unused:
        table = unused.pop()
        while table:
            table.popitem()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
