"""Work in the background of the service."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

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


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
