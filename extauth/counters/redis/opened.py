"""The counters of a Redis URL, of whatever kind."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from extauth.counters.redis.cluster.url import SCHEMES
from extauth.counters.redis.counters import RedisCounters

if TYPE_CHECKING:
    from extauth.counters.redis.cluster.counters import ClusterCounters

StoredCounters: TypeAlias = "RedisCounters | ClusterCounters"


def open_counters(
    url: str,
    timeout_s: float,
    *,
    prefix: str = "extauth",
    evicts: Callable[[str], None] = lambda _reason: None,
) -> StoredCounters:
    """The arguments are as those of RedisCounters; raises SettingsError."""
    kind: type[StoredCounters] = RedisCounters
    if url.partition(":")[0] in SCHEMES:
        # With what guards it, half a megabyte that a single server spares.
        from extauth.counters.redis.cluster.counters import ClusterCounters  # noqa: PLC0415

        kind = ClusterCounters
    return kind(url, timeout_s, prefix=prefix, evicts=evicts)
