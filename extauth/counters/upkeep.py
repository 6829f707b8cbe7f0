"""What is done in the background for a store that replicas share."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from extauth.errors import StoreError

SETTLE_S = 0.1


async def keep_settled(settle_some: Callable[[], Awaitable[bool]]) -> None:
    """Write into the store what was counted without it, a little at a time.

    `settle_some` writes a part of it if the store counts, and returns whether there may be more.
    """
    while True:
        more = False
        with suppress(StoreError):  # the next batch finds out, too
            more = await settle_some()
        await asyncio.sleep(0 if more else SETTLE_S)
