"""Shards without a cluster: in memory, or each as runs of its own on one server."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.errors import StoreError
from extauth.limiter.counter_names import ShardOf, tags
from extauth.limiter.counters import Group, Return, TakeResult

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

    Before each run the shard waits for `pause`. `asked` is called at the instant of each run, and `answered` after it;
    both may raise.
    """

    def __init__(self, stores: Sequence[_Shard], pause: Callable[[], Awaitable[None]] = at_once) -> None:
        self.stores = stores
        self.shard_of = ShardOf(len(stores))
        self.pause = pause
        self.away: set[int] = set()
        self.asked: Callable[[int, Sequence[Group]], None] = lambda _shard, _groups: None
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
        self.answered(shard, groups)
        return takens

    async def give_back(self, shard: int, returns: Sequence[Return]) -> None:
        await self.pause()
        self.returned += [(shard, each) for each in returns]
        if shard in self.away:
            raise StoreError("connection", "it is away", sent=False)
        await self.stores[shard].give_back(returns)


def in_memory(clock: Callable[[], int], pause: Callable[[], Awaitable[None]] = at_once) -> FakeShards:
    return FakeShards([MemoryCounters(clock) for _ in range(SHARDS)], pause)


def on_one_server(server: OneShard, pause: Callable[[], Awaitable[None]] = at_once) -> FakeShards:
    return FakeShards([server] * SHARDS, pause)


def unused_prefix() -> str:
    return secrets.token_hex(8)
