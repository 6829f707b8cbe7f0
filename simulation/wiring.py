"""What stands between a replica's limiter and the store, composed as extauth/store.py composes it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from extauth.counters.breaker import Breaker, BreakerState, Guard
from extauth.counters.denial_cache import DenialCache, GuardedDenialCache
from extauth.counters.heartbeat import Registry
from extauth.counters.local import LocalCounters, SettlingCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.takes import ClusterTakes
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.counters import Group, Part, Return, ShardedCounters, TakeResult, Uncounted
from extauth.transport.parted import PartOf
from simulation.cluster import Cluster
from simulation.layout import Layout
from simulation.loop import VirtualLoop
from simulation.network import Link, counted

DENIALS_S = 1.0
LOCAL_BYTES = 4 << 20


class _Local(LocalCounters):
    """Calls `reported` with the name of each counter of which the store has reported, from when on that holds."""

    reported: Callable[[bytes], None]

    def remember(self, groups: Sequence[Group], takens: Sequence[TakeResult]) -> None:
        """As LocalCounters."""
        super().remember(groups, takens)
        for group in groups:
            for name in group.take.names:
                self.reported(name)


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """`asked` is what the limiter asks; `links` are by the numbers of the masters, of which one server is the only one.

    `state_of` a name is that of the breaker of the master that has this counter.
    """

    links: Sequence[Link]
    local: _Local
    asked: ShardedCounters
    guard: Guard
    registry: Registry
    state_of: Callable[[bytes], BreakerState]
    settle_some: Callable[[], Awaitable[bool]]
    part_of: PartOf | None
    ready: bool
    """Whether calls come before the store was looked at."""

    aclose: Callable[[], Awaitable[None]]


def one_server(loop: VirtualLoop, link: Link, random: Random, changed: Callable[[], None]) -> Wiring:
    """The store is one server."""
    local = _Local(link.now_us, LOCAL_BYTES)
    settling = SettlingCounters(link, local)
    breaker = Breaker(DenialCache(settling, DENIALS_S, loop.time_us), changed, clock=loop.time, chance=random.random)

    async def settle_some() -> bool:
        return breaker.state is BreakerState.CLOSED and await settling.settle_some()

    return Wiring(
        links=[link],
        local=local,
        asked=breaker,
        guard=breaker,
        registry=link,
        state_of=lambda _name: breaker.state,
        settle_some=settle_some,
        part_of=None,
        ready=True,
        aclose=breaker.aclose,
    )


def cluster(
    loop: VirtualLoop, links: Sequence[Link], layout: Layout, random: Random, changed: Callable[[], None]
) -> Wiring:
    """The store is a cluster."""
    counters = Cluster(links, layout)
    local = _Local(counters.now_us, LOCAL_BYTES, now_us_of=counters.now_us)
    guard = ClusterGuard(counters, local, ShardOf(), changed, clock=loop.time, chance=random.random)
    shards = SeveralShards(_Receipts(guard, links))
    takes = ClusterTakes(guard, shards)

    async def aclose() -> None:
        await shards.aclose()
        await guard.aclose()
        await counters.aclose()

    return Wiring(
        links=links,
        local=local,
        asked=GuardedDenialCache(takes, shards, DENIALS_S, loop.time_us),
        guard=guard,
        registry=counters,
        state_of=guard.state_of,
        settle_some=guard.settle_some,
        part_of=takes.part_of,
        ready=False,
        aclose=aclose,
    )


class _Receipts:
    """`counters.shards.Shards`: notes for the batch that is being decided when which shard counted its calls."""

    def __init__(self, shards: ClusterGuard, links: Sequence[Link]) -> None:
        self.shard_of = shards.shard_of
        self._shards = shards
        self._links = links

    async def take(self, shard: int, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        takens = await self._shards.take(shard, groups)
        for group, taken in zip(groups, takens, strict=True):
            if isinstance(group.take, Part) and isinstance(taken, TakeResult):
                for link in self._links:
                    counted.get().extend(link.receipts.pop(id(group.take), (group.take, []))[1])
        return takens

    async def give_back(self, shard: int, returns: Sequence[Return]) -> None:
        await self._shards.give_back(shard, returns)
