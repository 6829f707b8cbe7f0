"""What is done in the background for a store that replicas share."""

import asyncio
from contextlib import suppress

from extauth.counters.breaker import Breaker, BreakerState
from extauth.counters.local import SettlingCounters
from extauth.errors import StoreError

SETTLE_S = 0.1


async def keep_settled(breaker: Breaker, settling: SettlingCounters) -> None:
    """Write into the store what was counted without it, a little at a time, while it counts."""
    while True:
        more = False
        if breaker.state is BreakerState.CLOSED:
            with suppress(StoreError):  # the next batch finds out, too
                more = await settling.settle_some()
        await asyncio.sleep(0 if more else SETTLE_S)
