"""Heartbeats of replicas, kept in Redis: `counters.heartbeat.Registry` without what depends on a connection."""

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from extauth.counters.redis.scripts import Script, command, run_of

REPORTS_A_RUN: Final = 8  # of up to 16 KiB: other calls wait for the reply

_T = TypeVar("_T")


class Runs(Protocol):
    """The server that has the keys of heartbeats, which lie in one slot of a cluster: that of `key`."""

    async def run(self, key: bytes, script: Script, packed: tuple[bytes, bytes], kind: type[_T]) -> _T:
        """A script's reply, which must be of this kind; raises StoreError."""
        ...

    async def execute(self, key: bytes, packed: bytes) -> object:
        """A command's reply; raises StoreError."""
        ...

    def now(self) -> bytes:
        """The time for scripts: empty where the server's own clock counts."""
        ...


class HeartbeatKeys:
    """Reads and writes heartbeats under the key `name`, and the reports under `name:ID`."""

    def __init__(self, runs: Runs, name: bytes) -> None:
        self._runs = runs
        self._name = name
        self._replicas_script, self._reports_script = Script("replicas", ("state",)), Script("reports", ())

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """One run of replicas.lua: as `counters.heartbeat.Registry` describes."""
        keys = (self._name, self._report(replica))
        arguments = (self._runs.now(), replica.encode(), address.encode(), rest.encode(), report)
        return await self._runs.run(self._name, self._replicas_script, run_of(keys, arguments), bytes)

    async def read_heartbeats(self) -> bytes:
        """The lines of all replicas; raises StoreError."""
        reply = await self._runs.execute(self._name, command(b"GET", self._name))
        return reply if isinstance(reply, bytes) else b""

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """Runs of reports.lua, of REPORTS_A_RUN reports each: as `counters.heartbeat.Registry` describes."""
        reports: list[bytes] = []
        for i in range(0, len(replicas), REPORTS_A_RUN):
            keys = list(map(self._report, replicas[i : i + REPORTS_A_RUN]))
            found = await self._runs.run(self._name, self._reports_script, run_of(keys, ()), list)
            reports += [report if isinstance(report, bytes) else b"" for report in found[: len(keys)]]
        return reports

    def _report(self, replica: str) -> bytes:
        return self._name + b":" + replica.encode()
