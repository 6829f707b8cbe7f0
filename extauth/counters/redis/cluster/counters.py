"""Counters in a Redis Cluster: one write a master, with one script run a slot."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count
from typing import Any, TypeVar

from extauth.counters.redis.cluster import moving
from extauth.counters.redis.cluster.master import Master, MasterOptions
from extauth.counters.redis.cluster.node import RIGHTS as CLUSTER_RIGHTS
from extauth.counters.redis.cluster.runs import CommandRun, Run, TakeRun, WriteRun
from extauth.counters.redis.cluster.slots import slot_of
from extauth.counters.redis.cluster.topology import Topology
from extauth.counters.redis.cluster.url import read_cluster_url
from extauth.counters.redis.counters import RIGHTS
from extauth.counters.redis.endpoint import fault
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.registry import HeartbeatKeys
from extauth.counters.redis.scripts import Script
from extauth.counters.redis.takes import pack_returns, pack_settle
from extauth.errors import SettingsError, StoreError
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Owed, Return, TakeResult, Uncounted
from extauth.rules.model import Limit, Unit

_T = TypeVar("_T")


class ClusterCounters:
    """`limiter.counters.SharedCounters` in a Redis Cluster, of groups whose counters lie in one slot each.

    The arguments are as those of RedisCounters. The clock of a counter is that of the master of its slot.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        clock: Callable[[], int] | None = None,
        *,
        prefix: str = "extauth",
        evicts: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        if wrong := fault(url):
            raise SettingsError(f"EXTAUTH_REDIS_URL: {wrong}")
        self._clock = clock
        self._evicts = evicts
        self._said: dict[str, str] = {}
        self._prefix = prefix.encode("utf-8", "surrogateescape")
        self.rights = f"{RIGHTS} {CLUSTER_RIGHTS} ~{prefix}:*"
        options = MasterOptions(timeout_s, self._greeted, clock, self.rights)
        self.topology = Topology(read_cluster_url(url), options)
        self._take_script, self._settle_script, self._return_script = map(Script, ("take", "settle", "give_back"))
        self._number = 0
        self.heartbeats_key = self._prefix + b":{replicas}"
        self._heartbeats = HeartbeatKeys(_Slots(self), self.heartbeats_key)

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """As Counters say; each slot's groups see one instant. Raises StoreError where one group is not counted."""
        takens: list[TakeResult] = []
        for group in groups:  # who asks here is in no hurry
            (taken,) = await self.take_at(await self._master_of(group.take.names[0]), [group])
            if isinstance(taken, Uncounted):
                raise StoreError("reply", "its slot of the Redis Cluster is moving", sent=taken is Uncounted.SENT)
            takens.append(taken)
        return takens

    async def take_at(
        self, master: Master, groups: Sequence[Group], *, receipts: bool = False
    ) -> Sequence[TakeResult | Uncounted]:
        """Take from counters that this master serves, in one write; raises StoreError where it is at fault.

        The groups may be Parts of requests only with `receipts`.
        """
        by_head: dict[bytes, list[int]] = {}
        for i, group in enumerate(groups):
            name = group.take.names[0]
            end = name.find(b"}")
            head = name[:end] if end >= 0 else name
            indices = by_head.get(head)
            if indices is None:
                by_head[head] = [i]
            else:
                indices.append(i)
        every = list(by_head.values())
        runs = []
        for indices in every:
            self._number += 1
            theirs = groups if len(every) == 1 else [groups[i] for i in indices]
            runs.append(TakeRun(self._take_script, theirs, self._number, receipts=receipts))
        results = await moving.send(self.topology, master, runs)
        if len(every) == 1:
            return results[0]
        takens: list[TakeResult | Uncounted] = [Uncounted.UNSENT] * len(groups)
        for indices, result in zip(every, results, strict=True):
            for i, taken in zip(indices, result, strict=True):
                takens[i] = taken
        return takens

    async def settle(self, owed: Sequence[Owed]) -> None:
        """As SharedCounters say."""
        by_master: dict[Master, list[Owed]] = {}
        for each in owed:
            by_master.setdefault(await self._master_of(each.name), []).append(each)
        for master, theirs in by_master.items():
            await self.settle_at(master, theirs)

    async def settle_at(self, master: Master, owed: Sequence[Owed]) -> None:
        """Add what is owed to counters that this master serves; raises StoreError, as SharedCounters say."""
        by_slot: dict[int, list[Owed]] = {}
        for each in owed:
            by_slot.setdefault(slot_of(each.name), []).append(each)
        runs = [WriteRun(self._settle_script, theirs, pack_settle) for theirs in by_slot.values()]
        for result in await moving.send(self.topology, master, runs):
            if any(isinstance(each, Uncounted) for each in result):
                raise StoreError("reply", "what is owed to counters of a slot that is moving could not be added")

    async def give_back_at(self, master: Master, returns: Sequence[Return]) -> None:
        """Give hits back to counters of one slot that this master serves; raises StoreError, as Shards say."""
        await moving.send(self.topology, master, [WriteRun(self._return_script, returns, pack_returns)])

    async def connect(self) -> None:
        """Return once all masters have answered on the connections that takes will use; raises StoreError."""
        await self._know()
        for master in self.topology.masters.values():
            await master.pipe.connect()

    async def probe(self) -> None:
        """Return if all masters can count, else raise StoreError with the reason."""
        await self._know()
        for master in self.topology.masters.values():
            await self.probe_at(master)

    async def probe_at(self, master: Master) -> None:
        """Count on a key of its own in one of the master's slots, as a batch would; raises StoreError."""
        spans = self.topology.map.spans
        slot = next((span.first for span in spans if span.master == master.address), None)
        if slot is None:
            return
        name = b"%b:probe:{%b}" % (self._prefix, _tag_of(slot))
        check = LimitCheck(Limit(2**32 - 1, Unit.SECOND), 1)
        self._number += 1
        await moving.send(
            self.topology, master, [TakeRun(self._take_script, [Group(CounterSet((name,), (check,)), 1)], self._number)]
        )

    def now_us(self, name: bytes = b"") -> int:
        """The clock of the master that serves the slot of this counter, as far as this process knows it."""
        if self._clock is not None:
            return self._clock()
        master = self.topology.master_of(name)
        return time.time_ns() // 1000 if master is None else master.server_clock.now_us()

    def now(self) -> bytes:
        """The time for scripts: empty where the servers' own clocks count."""
        return b"" if self._clock is None else b"%d" % self._clock()

    async def run(self, run: Run) -> Any:  # noqa: ANN401 - whatever Redis replies
        """The result of a run of a single item; raises StoreError."""
        master = await self._master_of(run.names()[0])
        ((result,),) = await moving.send(self.topology, master, [run])
        if isinstance(result, Uncounted):
            raise StoreError("reply", "its slot of the Redis Cluster is moving", sent=result is Uncounted.SENT)
        return result

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """As `counters.heartbeat.Registry` describes."""
        return await self._heartbeats.exchange_heartbeats(replica, address, rest, report)

    async def read_heartbeats(self) -> bytes:
        """The lines of all replicas; raises StoreError."""
        return await self._heartbeats.read_heartbeats()

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """As `counters.heartbeat.Registry` describes."""
        return await self._heartbeats.read_reports(replicas)

    def local_host(self) -> str | None:
        """The address of this host from which it is connected to a master; None while it is to none."""
        hosts = (master.pipe.local_host() for master in self.topology.masters.values())
        return next((host for host in hosts if host is not None), None)

    async def forget(self, names: Sequence[bytes]) -> int:
        """Delete the counters by these names; returns how many there were. Raises StoreError."""
        deleted = 0
        for name in names:
            reply = await self.run(CommandRun.of(b"DEL", name))
            deleted += reply if isinstance(reply, int) else 0
        return deleted

    async def aclose(self) -> None:
        """Close all connections."""
        await self.topology.aclose()

    async def _know(self) -> None:
        if not self.topology.masters:
            await self.topology.refresh()

    async def _master_of(self, name: bytes) -> Master:
        await self._know()
        master = self.topology.master_of(name)
        if master is None:
            self.topology.refresh_soon()
            message = f"no master of the Redis Cluster serves slot {slot_of(name)}"
            raise StoreError("reply", message, sent=False)
        return master

    def _greeted(self, where: str, greeting: Greeting) -> None:
        reason = greeting.eviction(where)
        if reason and reason != self._said.get(where):
            self._evicts(reason)
        self._said[where] = reason


class _Slots:
    """`redis.registry.Runs` in a cluster."""

    def __init__(self, counters: ClusterCounters) -> None:
        self._counters = counters
        self.now = counters.now

    async def run(self, key: bytes, script: Script, packed: tuple[bytes, bytes], kind: type[_T]) -> _T:
        reply = await self._counters.run(CommandRun(key, packed, script))
        if not isinstance(reply, kind):
            raise StoreError("reply", "Redis replied what the script never says")
        return reply

    async def execute(self, key: bytes, packed: bytes) -> object:
        reply: object = await self._counters.run(CommandRun(key, (packed, b"")))
        return reply


@cache
def _tag_of(slot: int) -> bytes:
    """A hash tag of this slot."""
    return next(tag for tag in map(b"%x".__mod__, count()) if slot_of(tag) == slot)
