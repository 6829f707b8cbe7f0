"""Takes counter by counter, from a slot of which some keys have moved to another master and others have not."""

from collections.abc import Sequence

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.master import Master
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.counters import Group, Return, Taken, TakeResult, Uncounted


class _KeyByKey:
    """`counters.shards.Shards` where each counter of a group is a shard by itself."""

    def __init__(self, cluster: ClusterCounters, master: Master, names: Sequence[bytes]) -> None:
        self._cluster = cluster
        self._master = master
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def shard_of(self, name: bytes) -> int:
        return self._numbers[name]

    async def take(self, _shard: int, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        return await self._cluster.take_at(self._master, groups, receipts=True)

    async def give_back(self, _shard: int, returns: Sequence[Return]) -> None:
        await self._cluster.give_back_at(self._master, returns)


async def take_by_key(cluster: ClusterCounters, master: Master, group: Group) -> Taken:
    """Take on each counter, wherever it is, and give back where another denied; the group is no Part.

    No step is over both masters, and so this is as with a request over several shards: see counters.several_shards.
    """
    (taken,) = await SeveralShards(_KeyByKey(cluster, master, group.take.names)).take([group])
    return taken
