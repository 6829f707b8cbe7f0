"""Runs the stack, the honest callers, and a hostile client beside them."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adversary.attacks import ATTACKS
from adversary.callers import OVER, PAUSE_S, Caller
from adversary.envoy_edits import widen
from adversary.report import Row, summary
from adversary.wire import HOSTILE_KEY, OPEN_KEY
from scripts.stack import Ports, Stack
from tests.support.real_clients import CLIENTS, Counts, run_client
from tests.support.stack_counters import undecided

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 1.0  # of Envoy's filter: past it a request passes, on a machine that is shared with the attack
USED_UP = "used-tier-key"
DENIED_IN_TURN, SETTLE_S = 4, 30  # denials that show that a limit holds (again), and how long they may take
CONFIG = f"""\
domain: api
algorithm: gcra
labels: [path]
tiers:
  anonymous: {{ unit: day, requests_per_unit: 1000000000 }}
  one: {{ unit: day, requests_per_unit: 1, replaces: [{{ name: anonymous }}] }}
  open: {{ unit: second, requests_per_unit: 1000000, replaces: [{{ name: anonymous }}] }}
descriptors:
  - {{ key: api_key, value: {HOSTILE_KEY}, tier: one }}
  - {{ key: api_key, value: {USED_UP}, tier: one }}
  - {{ key: api_key, value: {OPEN_KEY}, tier: open }}
  - {{ key: masked_remote_address, tier: anonymous }}
  - {{ key: named, value_to_metric: true, rate_limit: {{ unit: day, requests_per_unit: 1000000000 }} }}
"""


class Stage:
    """A running stack, and what is seen of it."""

    def __init__(self, folder: Path, edit: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        descriptors = folder / "descriptors"
        descriptors.mkdir(parents=True)
        (descriptors / "api.yaml").write_text(CONFIG)
        settings = {name: value for name, value in os.environ.items() if name == "EXTAUTH_ENGINE"}
        self.stack = Stack(
            ROOT,
            folder / "run",
            ports=Ports.free(),
            env={**settings, "EXTAUTH_CONFIG": str(descriptors), "EXTAUTH_REDIS_TIMEOUT": "5"},
            prometheus=False,
            ratelimit_timeout_s=TIMEOUT_S,
            edit_envoy=edit,
        )

    async def round(self, client: str, seconds: float) -> Row:
        """One hostile client for so long, beside the honest callers; first these alone for a while."""
        async with aiohttp.ClientSession(self.stack.url) as session:
            for key in (HOSTILE_KEY, USED_UP):
                if not await self._is_used_up(session, Caller(key)):
                    raise SystemExit(f"the limit of {key} does not hold even without an attack")
            alone = Caller(OPEN_KEY)
            done = asyncio.Event()
            asyncio.get_running_loop().call_later(min(seconds / 3, 2), done.set)
            await alone.ask_until(session, done)
            used_up, with_room = Caller(USED_UP), Caller(OPEN_KEY)
            before = await undecided(self.stack, session)
            done, most = asyncio.Event(), [0.0]
            async with asyncio.TaskGroup() as group:
                for caller in (used_up, with_room):
                    group.create_task(caller.ask_until(session, done))
                group.create_task(self._watch_memory(most, done))
                told = await self._attack(client, seconds)
                done.set()
            # What the attack broke may still be broken after it. The limit was used up, so none of these may pass.
            afterwards = Caller(USED_UP)
            await self._is_used_up(session, afterwards)
            after = await undecided(self.stack, session)
        return Row(
            client=client,
            sent=told["sent"],
            asked=used_up.asked + with_room.asked,
            passed=told["passed"] + used_up.passed + afterwards.passed,
            failed=with_room.asked - with_room.passed + used_up.asked - used_up.passed - used_up.denied,
            **{name: after[name] - before[name] for name in after},
            p99_ms=with_room.p99_ms,
            alone_ms=alone.p99_ms,
            rss_mb=most[0],
        )

    async def _attack(self, client: str, seconds: float) -> dict[str, int]:
        ports = self.stack.ports
        replica = ports.extauth[0]
        argv = [client, str(ports.edge), str(replica.grpc), str(replica.admin), str(seconds)]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "adversary.attacks", *argv, stdout=pipe, stderr=pipe, cwd=ROOT
        )
        output, errors = await asyncio.wait_for(process.communicate(), seconds + 40)
        if process.returncode:
            raise SystemExit(f"{client} broke off:\n{errors.decode()}")
        told: dict[str, int] = json.loads(output)
        return told

    async def _is_used_up(self, session: aiohttp.ClientSession, caller: Caller) -> bool:
        """Ask until several requests in turn are denied; False where that takes longer than SETTLE_S."""
        in_turn, until = 0, time.monotonic() + SETTLE_S
        while in_turn < DENIED_IN_TURN:
            in_turn = in_turn + 1 if await caller.ask(session) == OVER else 0
            if time.monotonic() > until:
                return False
            await asyncio.sleep(PAUSE_S)
        return True

    async def _watch_memory(self, most: list[float], done: asyncio.Event) -> None:
        """Keep the largest resident size of any replica, in MB."""
        pids = [self.stack.process(name).pid() for name in ("extauth-1", "extauth-2")]
        while not done.is_set():
            most[0] = max(most[0], *(resident_mb(pid) for pid in pids if pid is not None))
            await asyncio.sleep(0.1)


def resident_mb(pid: int) -> float:
    """What a process holds in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def run_all(
    clients: Sequence[str],
    *,
    seconds: float,
    rounds: int,
    say: Callable[[Row], None] = lambda _row: None,
    edit: Callable[[str, dict[str, Any]], None] | None = None,
) -> list[Row]:
    """Each client in its rounds, on one stack a kind of Envoy; returns a row of medians for each client.

    `say` is told each round; `edit` changes the Envoy that is as shipped.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        for wide in (False, True):
            members = [client for client in clients if ATTACKS[client].wide is wide]
            if not members:
                continue
            stage = Stage(Path(folder) / str(wide), widen if wide else edit)
            await asyncio.to_thread(stage.stack.up)
            try:
                for client in members:
                    seen = []
                    for _ in range(rounds):
                        seen.append(await stage.round(client, seconds))
                        say(seen[-1])
                    rows.append(summary(seen))
            finally:
                await asyncio.to_thread(stage.stack.down)
    return rows


async def well_behaved(seconds: float) -> dict[str, Counts]:
    """What became of the calls of real gRPC clients, by language; those whose tools are missing are left out."""
    counts: dict[str, Counts] = {}
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        stage = Stage(Path(folder))
        await asyncio.to_thread(stage.stack.up)
        try:
            address = f"127.0.0.1:{stage.stack.ports.extauth[0].grpc}"
            for name in CLIENTS:
                with contextlib.suppress(pytest.skip.Exception):
                    counts[name] = await asyncio.to_thread(run_client, name, address, seconds=seconds)
        finally:
            await asyncio.to_thread(stage.stack.down)
    return counts
