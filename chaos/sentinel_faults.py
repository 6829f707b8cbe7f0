"""Faults of a store that sentinels watch. Each ends when most of these name another master."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chaos.faults import FEW, Fault, Faults
from chaos.stage import Stage, Way


@asynccontextmanager
async def failed_over(stage: Stage) -> AsyncIterator[None]:
    """An operator has the sentinels make the replica the master."""
    await _ready(stage)
    await asyncio.to_thread(stage.trio.fail_over)
    await _switched(stage)
    yield


@asynccontextmanager
async def master_killed(stage: Stage) -> AsyncIterator[None]:
    """SIGKILL of the master, which comes back when it is wanted as a replica."""
    await _ready(stage)
    await asyncio.to_thread(stage.store.stop, signal.SIGKILL)
    await _switched(stage)
    yield


async def _ready(stage: Stage) -> None:
    """Wait until the spare is a replica that may take over, and is started if it was killed."""
    await stage.start_spare()
    await asyncio.to_thread(stage.trio.until_replica_is_known, stage.spare.port)


async def _switched(stage: Stage) -> None:
    await asyncio.to_thread(stage.trio.until_switched, stage.spare.port)
    stage.store, stage.spare = stage.spare, stage.store


# What the old master had not replicated yet is lost.
SENTINEL: Faults = {
    "sentinel_failover": Fault(cause=failed_over, way=Way.WATCHED, seconds=0, forgets=1, policies=FEW),
    "sentinel_master_killed": Fault(cause=master_killed, way=Way.WATCHED, seconds=0, forgets=1),
}
