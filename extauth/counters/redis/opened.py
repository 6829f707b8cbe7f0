"""The counters of a Redis URL, of whatever kind."""

from collections.abc import Callable
from typing import TypeAlias

from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.url import SCHEMES
from extauth.counters.redis.counters import RedisCounters

StoredCounters: TypeAlias = RedisCounters | ClusterCounters


def open_counters(
    url: str,
    timeout_s: float,
    *,
    prefix: str = "extauth",
    evicts: Callable[[str], None] = lambda _reason: None,
) -> StoredCounters:
    """The arguments are as those of RedisCounters; raises SettingsError."""
    kind = ClusterCounters if url.partition(":")[0] in SCHEMES else RedisCounters
    return kind(url, timeout_s, prefix=prefix, evicts=evicts)
