"""Batches on a cluster: each master's part of a batch in one take, whatever becomes of the others."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Final

from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.errors import StoreError
from extauth.limiter.counters import Group, ShardedCounters, Taken, Uncounted

MOST_COMBINED: Final = 4  # masters, which have 15 combinations


class ClusterTakes:
    """`limiter.counters.ShardedCounters` of a cluster; `several` counts groups whose counters lie on several shards."""

    def __init__(self, guard: ClusterGuard, several: ShardedCounters) -> None:
        self._guard = guard
        self._several = several

    def part_of(self, names: Sequence[bytes]) -> Hashable:
        """What stands for the masters that have these counters: calls with the same can be answered together.

        Calls over several shards are answered after several steps, and so apart even where one master has all of them.
        Many masters have too many combinations for batches of their own: these have one part together.
        """
        master_of = self._guard.master_of
        if not self._are_several(names):
            return master_of(names[0])
        return frozenset([master_of(name) for name in names]) if self._guard.masters <= MOST_COMBINED else self

    def _are_several(self, names: Sequence[bytes]) -> bool:
        """Whether the counters lie on several shards."""
        shard_of = self._guard.shard_of
        return len(names) > 1 and len({shard_of(name) for name in names}) > 1

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As ShardedCounters say; all masters are asked at once."""
        master_of = self._guard.master_of
        parts: dict[Hashable, list[int]] = {}
        for i, group in enumerate(groups):
            names = group.take.names
            part: Hashable = self if self._are_several(names) else master_of(names[0])
            indices = parts.get(part)
            if indices is None:
                parts[part] = [i]
            else:
                indices.append(i)
        if len(parts) == 1:
            return await self._take(next(iter(parts)), groups)
        takens: list[Taken] = [Uncounted.UNSENT] * len(groups)
        results = await asyncio.gather(
            *(self._take(part, [groups[i] for i in indices]) for part, indices in parts.items()), return_exceptions=True
        )
        for indices, result in zip(parts.values(), results, strict=True):
            if isinstance(result, StoreError):
                result = [Uncounted.of(sent=result.sent)] * len(indices)  # noqa: PLW2901
            elif isinstance(result, BaseException):
                raise result
            for i, taken in zip(indices, result, strict=True):
                takens[i] = taken
        return takens

    async def _take(self, part: Hashable, groups: Sequence[Group]) -> Sequence[Taken]:
        if part is self:
            return await self._several.take(groups)
        takens: list[Taken] = [*await self._guard.take_whole(groups)]
        if Uncounted.UNSENT in takens:
            split = self._guard.is_split
            apart = [i for i, taken in enumerate(takens) if taken is Uncounted.UNSENT and split(groups[i].take.names)]
            again = await asyncio.gather(*(self._guard.take_by_key(groups[i]) for i in apart))
            for i, taken in zip(apart, again, strict=True):
                takens[i] = taken
        return takens
