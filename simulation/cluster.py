"""A cluster as a replica sees it: the real counters, whose masters are servers behind links with faults."""

from collections.abc import Sequence
from typing import Any

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.master import Master
from extauth.counters.redis.cluster.node import ClusterNode
from extauth.counters.redis.cluster.runs import Run, TakeRun, WriteRun
from extauth.counters.redis.cluster.topology import Topology
from extauth.counters.redis.cluster.url import read_cluster_url
from extauth.counters.redis.connection import RedisConnection
from extauth.counters.redis.protocol import ReplyError
from extauth.limiter.counters import Owed, Return
from simulation.layout import Layout, address_of, number_of
from simulation.network import TIMEOUT_S, Command, Link

_PREFIX = "x"


class Cluster(ClusterCounters):
    """`links` are those to the masters, by their numbers."""

    def __init__(self, links: Sequence[Link], layout: Layout) -> None:
        url = f"redis+cluster://{address_of(0)}"
        super().__init__(url, TIMEOUT_S, prefix=_PREFIX)
        self._links = links
        self._layout = layout
        self.topology = _Topology(url, self._make, layout)

    def now_us(self, name: bytes = b"") -> int:
        """The clock of the master that has this counter, as far as this process knows it."""
        return self._links[self._layout.master_of(name)].now_us()

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """As counters.heartbeat.Registry describes, without reports."""
        link = self._links[self._layout.master_of(self.heartbeats_key)]
        return await link.exchange_heartbeats(replica, address, rest, report)

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """There are none."""
        return [b""] * len(replicas)

    def local_host(self) -> str | None:
        """There is none."""
        return None

    def _make(self, node: ClusterNode) -> Master:
        return _Master(node, self._links[number_of(node.address)], self.rights)


class _Topology(Topology):
    """The masters stay the same, and all replicas know them once they have looked."""

    def __init__(self, url: str, make: Any, layout: Layout) -> None:  # noqa: ANN401 - as Topology
        super().__init__(read_cluster_url(url), make)
        self._slots = layout.slots

    async def refresh(self) -> None:
        """As Topology."""
        self._apply(self._slots)


class _Connection(RedisConnection):
    """What of it a master's breaker asks."""

    def __init__(self, node: ClusterNode, link: Link) -> None:
        super().__init__(node, TIMEOUT_S)
        self._to = link

    async def connect(self) -> None:
        """As RedisConnection."""
        await self._to.connect()


class _Master(Master):
    """Sends its runs as one message over the link."""

    def __init__(self, node: ClusterNode, link: Link, rights: str) -> None:
        super().__init__(node, TIMEOUT_S, lambda _where, _greeting: None, None, rights)
        self.pipe = _Connection(node, link)
        self._link = link

    async def send(self, runs: Sequence[Run], *, asking: bool = False) -> list[Sequence[Any] | ReplyError]:
        """As Master."""
        if asking:
            raise NotImplementedError("no slot is ever moving")
        asked_us = self._link.loop.time_us()
        told = await self._link.send([self._command(run) for run in runs], again=all(run.again for run in runs))
        return [
            self._link.read_take(run.groups, reply, asked_us) if isinstance(run, TakeRun) else [None] * len(run)
            for run, reply in zip(runs, told, strict=True)
        ]

    def _command(self, run: Run) -> Command:
        if isinstance(run, TakeRun):
            return self._link.taking(run.groups)
        if not isinstance(run, WriteRun):
            raise TypeError(f"no run that is known here: {run}")
        owed = [each for each in run.items if isinstance(each, Owed)]
        returns = [each for each in run.items if isinstance(each, Return)]
        return self._link.settling(owed) if owed else self._link.returning(returns)
