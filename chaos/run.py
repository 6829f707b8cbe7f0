"""Runs a stage under load, causes faults, and sees how long it takes until all is as before."""

import asyncio
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from typing import Any

import aiohttp

from chaos.client import OK, OVER, Client, Direct, Edge
from chaos.cluster_faults import CLUSTER
from chaos.config_faults import CONFIG
from chaos.faults import Fault
from chaos.load import Sample
from chaos.replica_faults import REPLICA
from chaos.report import Row, Seen, row
from chaos.sentinel_faults import SENTINEL
from chaos.stage import ROOT, Stage, Way
from chaos.store_faults import STORE
from extauth.rules.model import OnStoreFailure
from tests.support.stack_counters import of_each_replica, undecided

FAULTS = {**STORE, **SENTINEL, **CLUSTER, **REPLICA, **CONFIG}
POLICIES = tuple(policy.value for policy in OnStoreFailure)
BEFORE_S, AFTER_S = 1.0, 1.5  # of load, in which the limits are used up
RECOVERY_S = 30.0  # after which all should be as before in any case
STEADY_S, PROBE_EVERY_S = 1.0, 0.02  # calls must be counted together for so long, and not now and then
UNHANDLED = "Traceback [(]most recent call last[)]|was never retrieved|was never awaited"
_numbers = count()
_BY_POLICY = "extauth_store_failure_decisions_total"


class Load:
    """The load's process."""

    def __init__(self, process: asyncio.subprocess.Process, file: Path) -> None:
        self._process, self._file = process, file

    @classmethod
    async def start(cls, stage: Stage, name: str) -> "Load":
        """Start asking, as callers of this name."""
        ports, file = stage.stack.ports, stage.folder / f"{name}.json"
        argv = [
            str(file),
            name,
            str(stage.way.limits),
            str(ports.edge),
            *(str(replica.grpc) for replica in ports.extauth),
        ]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.load", *argv, stdin=pipe, stdout=pipe, cwd=ROOT
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        async with asyncio.timeout(30):
            if await process.stdout.readline() != b"ready\n":
                raise SystemExit("the load did not start")
        return cls(process, file)

    async def stop(self) -> tuple[list[Sample], float]:
        """Stop asking; returns all calls, and the longest stall in seconds."""
        async with asyncio.timeout(60):
            await self._process.communicate(b"")
        if self._process.returncode:
            raise SystemExit(f"the load ended with exit code {self._process.returncode}")
        found: dict[str, Any] = json.loads(self._file.read_bytes())
        self._file.unlink()
        return [tuple(sample) for sample in found["samples"]], float(found["stall_s"])

    def kill(self) -> None:
        """Be sure that it has ended."""
        if self._process.returncode is None:
            self._process.kill()


class Probes:
    """Fresh callers with a limit of 1.

    Of two calls the first is admitted and the second denied where they are counted together, and by no policy.
    """

    def __init__(self, stage: Stage) -> None:
        self._results: dict[str, asyncio.Future[str]] = {}
        edge, *replicas = (stage.stack.ports.edge, *(replica.grpc for replica in stage.stack.ports.extauth))
        direct = Direct(twice=stage.way.limits > 1)
        self._clients = [Client(edge, Edge(), self._ended), *(Client(port, direct, self._ended) for port in replicas)]

    async def normal_at(self) -> float:
        """When calls began to be counted together, at each replica and through Envoy; inf: not in RECOVERY_S."""
        for client in self._clients:
            await client.start()
        edge, *replicas = self._clients
        try:
            until, since = time.monotonic() + RECOVERY_S, math.inf
            while time.monotonic() < until:
                pairs = [(edge, edge), *zip(replicas, [*replicas[1:], replicas[0]], strict=True)]
                if all([await self._counted_together(*pair) for pair in pairs]):
                    since = min(since, time.monotonic())
                else:
                    since = math.inf
                if time.monotonic() - since > STEADY_S:
                    return since
                await asyncio.sleep(PROBE_EVERY_S)
            return math.inf
        finally:
            for client in self._clients:
                await client.stop()

    async def _counted_together(self, first: Client, second: Client) -> bool:
        number = next(_numbers)
        return [await self._ask(client, f"probe-{number}") for client in (first, second)] == [OK, OVER]

    async def _ask(self, client: Client, key: str) -> str:
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._results[key] = result
        client.ask(key)
        return await result

    def _ended(self, _sent_at: float, key: str, result: str) -> None:
        waiting = self._results.pop(key, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)


@dataclass(frozen=True)
class _Log:
    """How far a replica's log went; a replica that is started again begins a new file, and keeps the one before."""

    path: Path
    size: int
    inode: int

    @classmethod
    def now(cls, path: Path) -> "_Log":
        status = path.stat()
        return cls(path, status.st_size, status.st_ino)

    def since(self) -> str:
        """What was written after that."""
        text = ""
        for file in (self.path.with_suffix(".log.1"), self.path):
            if file.exists() and (file.stat().st_ino == self.inode or file == self.path):
                whole = file.read_bytes()
                text += whole[self.size if file.stat().st_ino == self.inode else 0 :].decode(errors="replace")
        return text


async def round_of(stage: Stage, name: str, fault: Fault, *, strict: bool = True) -> Row:
    """Cause one fault under load."""
    started, waited_s = time.monotonic(), _waited_s()
    before = await _counts(stage)
    logs = [_Log.now(path) for log, path in stage.stack.logs().items() if log.startswith("extauth")]
    load = await Load.start(stage, f"{name}-{next(_numbers)}")
    try:
        await asyncio.sleep(BEFORE_S)
        began = time.monotonic()
        async with fault.cause(stage):
            await asyncio.sleep(fault.seconds)
        mended = time.monotonic()
        normal = await Probes(stage).normal_at()
        await asyncio.sleep(AFTER_S)
        samples, stall_s = await load.stop()
    finally:
        load.kill()
    after = await _counts(stage)
    texts = [log.since() for log in logs]
    by_policy = [now if now < then else now - then for then, now in zip(before[1], after[1], strict=True)]
    seen = Seen(
        samples=samples,
        began=began,
        mended=mended,
        normal=normal,
        stall_s=stall_s,
        busy=(_waited_s() - waited_s) / (time.monotonic() - started),
        envoy={each: after[0][each] - before[0][each] for each in after[0]},
        by_policy=sum(by_policy),
        lines=max(len(text.splitlines()) for text in texts),
        tracebacks=max(len(re.findall(UNHANDLED, text)) for text in texts),
    )
    return row(name, fault, stage.policy, seen, strict=strict)


def _waited_s() -> float:
    """How long anything on this machine has waited for a processor; 0 where the system does not say."""
    try:
        (some, *_) = Path("/proc/pressure/cpu").read_text().splitlines()
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6


async def _counts(stage: Stage) -> tuple[dict[str, int], list[int]]:
    async with aiohttp.ClientSession() as session:
        return await undecided(stage.stack, session), await of_each_replica(stage.stack, session, _BY_POLICY)


async def run_all(
    folder: Path,
    names: Iterable[str],
    policies: Sequence[str],
    *,
    strict: bool = True,
    seconds: float | None = None,
    patient: bool = False,
    say: Callable[[Row], None] = lambda _row: None,
) -> list[Row]:
    """Each fault under each policy, on one stage a policy, way to the store and number of replicas and workers.

    Each lasts for `seconds` at most.

    `strict` and `patient` are explained at `row` and `Stage`.
    """
    rows = []
    faults = {name: FAULTS[name] for name in names}
    for policy in policies:
        sizes = sorted({(fault.replicas_in_all, fault.workers) for fault in faults.values()})
        for way, (replicas, workers) in product(Way, sizes):
            members = {
                name: fault
                for name, fault in faults.items()
                if (fault.way, fault.replicas_in_all, fault.workers) == (way, replicas, workers)
                and policy in fault.policies
            }
            if not members:
                continue
            where = folder / policy / f"{way}-{replicas}-{workers}"
            async with Stage(where, policy, way, replicas=replicas, workers=workers, patient=patient) as stage:
                for name, fault in members.items():
                    shorter = fault if seconds is None else replace(fault, seconds=min(seconds, fault.seconds))
                    rows.append(await round_of(stage, name, shorter, strict=strict))
                    say(rows[-1])
    return rows
