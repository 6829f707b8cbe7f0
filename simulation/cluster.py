"""A cluster as a replica sees it: the real counters, whose masters are servers behind links with faults."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.master import Master, MasterOptions
from extauth.counters.redis.cluster.node import ClusterNode
from extauth.counters.redis.cluster.runs import Run, TakeRun, WriteRun
from extauth.counters.redis.cluster.slots import SlotMap, slot_of
from extauth.counters.redis.cluster.topology import Topology
from extauth.counters.redis.cluster.url import read_cluster_url
from extauth.counters.redis.connection import RedisConnection
from extauth.counters.redis.protocol import ReplyError
from extauth.limiter.counters import Owed, Return
from simulation.layout import Layout, address_of, number_of
from simulation.network import TIMEOUT_S, Command, Link

ANSWER_S = 0.002  # from the nodes
_PREFIX = "x"


class Cluster(ClusterCounters):
    """`links` are those to the masters, by their numbers."""

    def __init__(self, links: Sequence[Link], layout: Layout) -> None:
        url = f"redis+cluster://{address_of(0)}"
        super().__init__(url, TIMEOUT_S, prefix=_PREFIX)
        self._links = links
        self._layout = layout
        self.topology = _Topology(
            url,
            MasterOptions(TIMEOUT_S, lambda _where, _greeting: None, None, self.rights),
            links,
            lambda: layout.slots_at([link.store.hand_overs for link in links]),
            links[0].loop.time,
        )

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


class _Topology(Topology):
    """Asks nobody in particular who serves the slots, and always gets an answer."""

    def __init__(
        self,
        url: str,
        options: MasterOptions,
        links: Sequence[Link],
        slots: Callable[[], SlotMap],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(read_cluster_url(url), options, clock=clock)
        self._own_options = options
        self._links = links
        self._slots = slots

    def make(self, node: ClusterNode) -> Master:
        """As Topology."""
        return _Master(node, self._links[number_of(node.address)], self._own_options)

    async def _refresh(self) -> None:
        """As Topology."""
        await asyncio.sleep(ANSWER_S)
        self._apply(self._slots())


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

    def __init__(self, node: ClusterNode, link: Link, options: MasterOptions) -> None:
        super().__init__(node, options)
        self.pipe = _Connection(node, link)
        self._link = link

    async def send(self, runs: Sequence[Run], *, asking: bool = False) -> list[Sequence[Any] | ReplyError]:
        """As Master."""
        if asking:
            raise NotImplementedError("no slot is ever on its way")
        asked_us = self._link.loop.time_us()
        commands = [self._command(run) for run in runs]
        told = await self._link.send(commands, again=all(run.again for run in runs))
        results: list[Sequence[Any] | ReplyError] = []
        for run, command, reply in zip(runs, commands, told, strict=True):
            if isinstance(reply, ReplyError):
                command.unsent()
                results.append(reply)
            elif isinstance(run, TakeRun):
                results.append(self._link.read_take(run.groups, reply, asked_us))
            else:
                results.append([None] * len(run))
        return results

    def _command(self, run: Run) -> Command:
        command = self._well(run)
        slot, store = slot_of(run.names()[0]), self._link.store

        def work() -> Any:  # noqa: ANN401 - as Command
            serving = address_of(number_of(self.address), store.hand_overs)
            return command.work() if serving == self.address else ReplyError(f"MOVED {slot} {serving}")

        return command._replace(work=work)

    def _well(self, run: Run) -> Command:
        """The command where this is the master of its slot."""
        if isinstance(run, TakeRun):
            return self._link.taking(run.groups)
        if not isinstance(run, WriteRun):
            raise TypeError(f"no run that is known here: {run}")
        owed = [each for each in run.items if isinstance(each, Owed)]
        returns = [each for each in run.items if isinstance(each, Return)]
        return self._link.settling(owed) if owed else self._link.returning(returns)
