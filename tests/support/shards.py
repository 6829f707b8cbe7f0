"""Shards without a cluster: in memory, or each as runs of its own on one server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol
from zlib import crc32

from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.counters import RedisCounters
from extauth.counters.several_shards import SeveralShards
from extauth.counters.shards import Shards
from extauth.errors import StoreError
from extauth.limiter.counter_names import ShardOf, tags
from extauth.limiter.counters import CounterSet, Group, Return, TakeResult
from tests.counters.bench import Bench, Want
from tests.support.clock import Clock

SHARDS = 4
_TAGS = tags(SHARDS)


def on(shard: int, name: str, prefix: str = "x") -> bytes:
    """The name of a counter that lies on that shard."""
    return f"{prefix}:{{{_TAGS[shard]}}}:{name}".encode()


class OneShard(RedisCounters):
    """A shard that is a server of its own."""

    take = RedisCounters.take_parts


class _Shard(Protocol):
    async def take(self, groups: Sequence[Group]) -> list[TakeResult]: ...

    async def give_back(self, returns: Sequence[Return]) -> None: ...


async def at_once() -> None:
    pass


class FakeShards:
    """`counters.shards.Shards`: each is one of `stores`. Those that are `away` count nothing.

    Before each run the shard waits for `pause`. `asked` is called before it, `counted` after it, and then `answered`,
    which may raise.
    """

    def __init__(self, stores: Sequence[_Shard]) -> None:
        self.stores = stores
        self.shard_of = ShardOf(len(stores))
        self.pause: Callable[[], Awaitable[None]] = at_once
        self.away: set[int] = set()
        self.asked: Callable[[int, Sequence[Group]], None] = lambda _shard, _groups: None
        self.counted: Callable[[int, Sequence[Group]], None] = lambda _shard, _groups: None
        self.answered: Callable[[int, Sequence[Group]], None] = lambda _shard, _groups: None
        self.runs: list[tuple[int, Sequence[Group]]] = []
        self.returned: list[tuple[int, Return]] = []

    @staticmethod
    def lost() -> StoreError:
        """What a reply that never comes is."""
        return StoreError("timeout", "no answer", sent=True)

    async def take(self, shard: int, groups: Sequence[Group]) -> Sequence[TakeResult]:
        await self.pause()
        self.runs.append((shard, groups))
        if shard in self.away:
            raise StoreError("connection", "it is away", sent=False)
        self.asked(shard, groups)
        takens = await self.stores[shard].take(groups)
        self.counted(shard, groups)
        self.answered(shard, groups)
        return takens

    async def give_back(self, shard: int, returns: Sequence[Return]) -> None:
        await self.pause()
        self.returned += [(shard, each) for each in returns]
        if shard in self.away:
            raise StoreError("connection", "it is away", sent=False)
        await self.stores[shard].give_back(returns)


def in_memory(clock: Clock, *, skews_us: Sequence[int] = (0,) * SHARDS) -> FakeShards:
    """Each with a clock of its own, so much ahead of this one."""
    return FakeShards([MemoryCounters(partial(_ahead, clock, skew_us)) for skew_us in skews_us])


def _ahead(clock: Clock, skew_us: int) -> int:
    return clock() + skew_us


def on_one_server(server: OneShard) -> FakeShards:
    """Each as runs of its own on that server."""
    return FakeShards([server] * SHARDS)


class Settled:
    """`limiter.counters.Counters` over shards: returns once what is to be given back was."""

    def __init__(self, shards: Shards) -> None:
        self.shards = SeveralShards(shards)

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        takens = await self.shards.take(groups)
        await self.shards.aclose()
        return [taken for taken in takens if isinstance(taken, TakeResult)]

    async def connect(self) -> None:
        pass

    async def probe(self) -> None:
        pass


class ShardedBench(Bench):
    """A bench each of whose counters lies on one of the shards, by its name."""

    def group(self, *wants: Want, calls: int = 1) -> Group:
        group = super().group(*wants, calls=calls)
        names = [on(crc32(name) % SHARDS, name.decode()) for name in group.take.names]
        return Group(CounterSet(tuple(names), group.take.checks), calls)


class _OfCluster:
    """One of the shards of a cluster."""

    def __init__(self, guard: ClusterGuard, shard: int) -> None:
        self._guard = guard
        self._shard = shard

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        takens = await self._guard.take(self._shard, groups)
        return [taken for taken in takens if isinstance(taken, TakeResult)]

    async def give_back(self, returns: Sequence[Return]) -> None:
        await self._guard.give_back(self._shard, returns)


@asynccontextmanager
async def on_cluster(url: str, clock: Clock) -> AsyncIterator[FakeShards]:
    """The shards of a real cluster."""
    cluster = ClusterCounters(url, 10, clock)
    guard = ClusterGuard(cluster, LocalCounters(cluster.now_us), ShardOf(SHARDS))
    try:
        await guard.look()
        yield FakeShards([_OfCluster(guard, shard) for shard in range(SHARDS)])
    finally:
        await guard.aclose()
        await cluster.aclose()
