"""Faults of the replicas, and of one replica's way to the store."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from chaos.faults import FEW, LONGER_S, Cause, Fault, Faults
from chaos.stage import REPLICAS, Stage, Way
from chaos.store_faults import HANG_UP, conduct, frozen, over_and_over
from tests.support.proxy import Conduct
from tests.support.wait import until_async

NAMES = tuple(f"extauth-{i + 1}" for i in range(REPLICAS))
FIRST = frozenset({0})
LAST = frozenset({REPLICAS - 1})
ALL = frozenset(range(REPLICAS))
FOUR = frozenset(range(4))
LOCAL = frozenset({"local"})
HELD_CONNECTIONS = 50  # to a replica that has no descriptor left for them
THROTTLED_S, THROTTLED_EVERY_S = 0.15, 0.45


def gone(names: Sequence[str], sig: signal.Signals) -> Cause:
    """Replicas end, and are started again."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        await asyncio.gather(*(asyncio.to_thread(stage.stack.stop, name, sig) for name in names))
        try:
            yield
        finally:
            await asyncio.gather(*(asyncio.to_thread(stage.stack.start, name) for name in names))

    return fault


@asynccontextmanager
async def stopped(stage: Stage) -> AsyncIterator[None]:
    """SIGSTOP: its connections stay."""
    process = stage.stack.process(NAMES[0])
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


@asynccontextmanager
async def worker_killed(stage: Stage) -> AsyncIterator[None]:
    """SIGKILL of one worker of a replica, which starts another."""
    os.kill(_children(stage.stack.process(NAMES[0]).pid() or 0)[0], signal.SIGKILL)
    yield


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@asynccontextmanager
async def joined_while_frozen(stage: Stage) -> AsyncIterator[None]:
    """A replica is started while the store does not answer: it knows nothing of what was counted."""
    last = f"extauth-{stage.replicas}"
    await asyncio.to_thread(stage.stack.stop, last)
    async with frozen(stage):
        await asyncio.to_thread(stage.stack.start, last)
        yield


@asynccontextmanager
async def restarted_in_a_row(stage: Stage) -> AsyncIterator[None]:
    """One after the other, as a roll-out does: the next once Envoy uses the one before."""

    async def envoy_uses_all() -> bool:
        return all(state.startswith("ready") for _, state, _ in await asyncio.to_thread(stage.stack.status))

    for name in NAMES:
        await asyncio.to_thread(stage.stack.restart, name)
        await until_async(envoy_uses_all, f"Envoy uses {name}", every_s=0.1)
    yield


async def _throttle(stage: Stage) -> None:
    async with stopped(stage):
        await asyncio.sleep(THROTTLED_S)


@asynccontextmanager
async def descriptors_short(stage: Stage) -> AsyncIterator[None]:
    """The replicas may open no file more, have clients that want to connect, and lose the store's connection."""
    pids = [pid for name in NAMES if (pid := stage.stack.process(name).pid()) is not None]
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    async with AsyncExitStack() as exits:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_open_files(pid), before[pid][1]))
        try:
            for replica in stage.stack.ports.extauth:
                for _ in range(HELD_CONNECTIONS):
                    _, writer = await asyncio.open_connection("127.0.0.1", replica.grpc)
                    exits.callback(writer.close)
            await stage.command(HANG_UP)
            yield
        finally:
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before[pid])


def _open_files(pid: int) -> int:
    """How many there are. They need not be numbered without gaps, so that a few more may fit."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


all_gone = gone(NAMES, signal.SIGKILL)
REPLICA: Faults = {
    # Two workers of Envoy may each have sent to it what it did not answer, and each finds out for itself.
    "replica_killed": Fault(cause=gone(NAMES[:1], signal.SIGKILL), replicas=FIRST, lost=20, policies=FEW),
    "replica_stopped_5s": Fault(cause=stopped, seconds=5, replicas=FIRST, lost=100, normal_within_s=10, policies=FEW),
    "worker_killed": Fault(cause=worker_killed, workers=2, replicas=FIRST, lost=20, policies=FEW),
    "replicas_restarted": Fault(cause=restarted_in_a_row, seconds=0, replicas=ALL, policies=FEW),
    "replicas_gone": Fault(cause=all_gone, replicas=ALL, lost=float("inf"), normal_within_s=10, policies=FEW),
    "four_frozen": Fault(cause=frozen, seconds=LONGER_S, replicas_in_all=4, cut_off=FOUR, policies=LOCAL),
    "joined_while_frozen": Fault(cause=joined_while_frozen, replicas=LAST, newcomers=LAST, policies=FEW),
    "four_joined_while_frozen": Fault(
        cause=joined_while_frozen,
        seconds=LONGER_S,
        replicas_in_all=4,
        replicas=frozenset({3}),
        cut_off=FOUR,
        newcomers=frozenset({3}),
        policies=LOCAL,
    ),
    "cut_off": Fault(cause=conduct(Conduct.SWALLOW, of=(0,)), way=Way.PROXIED, cut_off=FIRST),
    "cut_off_refusing": Fault(cause=conduct(Conduct.HANG_UP, of=(0,), cut=True), way=Way.PROXIED, cut_off=FIRST),
    "replica_throttled": Fault(cause=over_and_over(THROTTLED_EVERY_S, _throttle), policies=FEW),
    "descriptors_short": Fault(cause=descriptors_short),
}
