"""Requests whose counters lie on one shard each, over several shards."""

import asyncio
from collections.abc import Sequence

from extauth.counters.shards import Shards
from extauth.errors import StoreError
from extauth.limiter.counters import Group, TakeResult, Uncounted


class WholeGroups:
    """`limiter.counters.GuardedCounters` in shards; a group whose counters lie on several is not counted."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def take(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As GuardedCounters say; all shards are asked at once."""
        by_shard: dict[int, list[int]] = {}
        shard_of = self._shards.shard_of
        for i, group in enumerate(groups):
            names = group.take.names
            shard = shard_of(names[0])
            if len(names) == 1 or all(shard_of(name) == shard for name in names):
                by_shard.setdefault(shard, []).append(i)
        takens: list[TakeResult | Uncounted] = [Uncounted.UNSENT] * len(groups)
        results = await asyncio.gather(
            *(self._shards.take(shard, [groups[i] for i in indices]) for shard, indices in by_shard.items()),
            return_exceptions=True,
        )
        for indices, result in zip(by_shard.values(), results, strict=True):
            if isinstance(result, StoreError):
                if len(indices) == len(groups):
                    raise result
                for i in indices:
                    takens[i] = Uncounted.of(sent=result.sent)
                continue
            if isinstance(result, BaseException):
                raise result
            for i, taken in zip(indices, result, strict=True):
                takens[i] = taken
        return takens
