"""The store of counters, with what is between it and the limiter."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from extauth.counters.breaker import Breaker, BreakerState, Guard
from extauth.counters.denial_cache import DenialCache, GuardedDenialCache
from extauth.counters.local import LocalCounters, SettlingCounters
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.counters.upkeep import keep_settled
from extauth.errors import StoreError
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.counters import Counters, ShardedCounters
from extauth.parts import counters_of
from extauth.settings import Settings
from extauth.transport.parted import PartOf

if TYPE_CHECKING:
    from extauth.counters.redis.cluster.counters import ClusterCounters

AnyCounters: TypeAlias = "RedisCounters | ClusterCounters | MemoryCounters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The store: `asked` is what the limiter asks, `breaker` what decides whether a call reaches the counters."""

    counters: AnyCounters
    local: LocalCounters
    asked: ShardedCounters
    breaker: Guard
    aclose: Callable[[], Awaitable[None]]
    """Gives up what goes on in the background; the counters are closed by themselves."""

    keep_settled: Callable[[], Awaitable[None]]
    """Writes into the store, for ever, what was counted without it."""

    part_of: PartOf | None = None
    """What stands for the part of the store that has counters with these names, where it has several."""

    forget_denials: Callable[[], list[dict[Any, Any]]]
    """To be called when the rules have changed; returns tables to be emptied bit by bit."""


def store_of(settings: Settings, changed: Callable[[], None], failed: Callable[[StoreError], None]) -> Store:
    """The store of the settings.

    `changed` is called after each change of the breaker, and `failed` for each batch, trial and probe that fails.
    """
    counters = counters_of(settings)
    if not isinstance(counters, RedisCounters | MemoryCounters):
        return _cluster(settings, counters, changed, failed)
    local = LocalCounters(counters.now_us, settings.local_bytes)
    settling = SettlingCounters(counters, local)
    denials = DenialCache(settling, settings.denial_cache, windows=settings.remember_denials)
    cached = (settings.denial_cache or settings.remember_denials) and not settings.counts_in_memory
    guarded: Counters = denials if cached else counters if settings.counts_in_memory else settling
    breaker = Breaker(guarded, changed, failed)
    if isinstance(counters, RedisCounters):
        counters.when_reconnected(breaker.retry)

    async def settle_some() -> bool:
        return breaker.state is BreakerState.CLOSED and await settling.settle_some()

    return Store(
        counters=counters,
        local=local,
        asked=breaker,
        breaker=breaker,
        aclose=breaker.aclose,
        keep_settled=lambda: keep_settled(settle_some),
        forget_denials=denials.forget,
    )


def _cluster(
    settings: Settings, counters: "ClusterCounters", changed: Callable[[], None], failed: Callable[[StoreError], None]
) -> Store:
    # Imported only here, as the counters of a cluster are: see `open_counters`.
    from extauth.counters.redis.cluster.guard import ClusterGuard  # noqa: PLC0415
    from extauth.counters.redis.cluster.takes import ClusterTakes  # noqa: PLC0415
    from extauth.counters.several_shards import SeveralShards  # noqa: PLC0415

    local = LocalCounters(counters.now_us, settings.local_bytes, now_us_of=counters.now_us)
    guard = ClusterGuard(counters, local, ShardOf(settings.shards), changed, failed)
    shards = SeveralShards(guard)
    takes = ClusterTakes(guard, shards)
    denials = GuardedDenialCache(takes, shards, settings.denial_cache, windows=settings.remember_denials)

    async def aclose() -> None:
        await shards.aclose()
        await guard.aclose()

    return Store(
        counters=counters,
        local=local,
        asked=denials if settings.denial_cache or settings.remember_denials else takes,
        breaker=guard,
        aclose=aclose,
        part_of=takes.part_of,
        keep_settled=lambda: keep_settled(guard.settle_some),
        forget_denials=denials.forget,
    )
