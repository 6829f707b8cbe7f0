"""Requests whose counters lie on several shards: each shard takes, and gives back where another one denied.

No step is over several shards, so a request takes on one after the other, in the order of `shard_order`, and each
admits some of the calls that the ones before it did. What a shard took for calls that a later one denied is given
back, by the receipt of the take and in the background: no answer waits for it, and it is never sent twice. Until
then, or where it is lost until it drains, a counter holds a little more than was admitted: others may be denied too
much for a moment, and too much is never admitted.

Every shard is asked about all calls. Those that were denied before only count where denied hits do, and the shard
reports its levels, so that an answer has every status as it would on one server. Where nothing is left to admit, all
remaining shards are asked at once.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from itertools import chain, pairwise

from extauth.counters.shard_order import ShardOrder, Step, shard_order
from extauth.counters.sharded_request import ShardedRequest
from extauth.counters.shards import Shards
from extauth.errors import StoreError
from extauth.limiter.counters import (
    CounterSet,
    Group,
    LimitCheck,
    Part,
    PartlyCounted,
    Return,
    Taken,
    TakeResult,
    Uncounted,
)
from extauth.limiter.memo import Memo

MAX_ORDERS_BYTES = 8 << 20
MAX_SHRINKING_BYTES = 2 << 20  # of names, and as much of older ones
NAME_BYTES = 100  # beside its text

_Pattern = tuple[int, ...]
"""The shard of each check, or -1 where its counter is that of the check before; of one shard alone only that."""

_Runs = dict[int, list[tuple[int, Step | None, Group]]]
"""What each shard is asked: the group's index, and where the whole group is not on the shard, the step."""


def _ask_next(index: int, request: ShardedRequest, runs: _Runs) -> None:
    for step in request.next_steps():
        runs.setdefault(step.shard, []).append((index, step, request.part_of(step, request.admitted)))


class SeveralShards:
    """`limiter.counters.ShardedCounters` over the shards of a store."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        # By the identity of checks, which the entry keeps: many requests have the same.
        self._orders: Memo[tuple[int, _Pattern], tuple[tuple[LimitCheck, ...], ShardOrder]] = Memo(MAX_ORDERS_BYTES)
        self._background: set[asyncio.Task[None]] = set()
        self._shrinking: tuple[set[bytes], set[bytes]] = set(), set()  # of late, and before
        self._shrinking_bytes = 0

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As ShardedCounters say. All that one shard is asked at a time is one run of it."""
        results: list[Taken] = [Uncounted.UNSENT] * len(groups)
        runs: _Runs = {}
        requests: dict[int, ShardedRequest] = {}
        for index, group in enumerate(groups):
            pattern = self._pattern(group.take)
            if len(pattern) == 1:
                runs.setdefault(pattern[0], []).append((index, None, group))
            else:
                requests[index] = ShardedRequest(group, self._order(group.take, pattern))
                _ask_next(index, requests[index], runs)
        errors: list[StoreError] = []
        while runs:
            asked = [each for own in runs.values() for each in own]
            takens = chain.from_iterable(await self._run(runs, errors))
            for (index, step, group), taken in zip(asked, takens, strict=True):
                if step is None:
                    results[index] = taken
                elif isinstance(group.take, Part):
                    requests[index].take_up(step, group.take, taken)
                    if group.take.most:
                        self._note_shrinking(group.take.names)
            runs = {}
            for index in dict.fromkeys(index for index, step, _ in asked if step is not None):
                _ask_next(index, requests[index], runs)
        returns: list[tuple[int, Return]] = []
        for index, request in requests.items():
            results[index] = self._finished(request, returns)
        self._give_back(returns)
        if errors and all(isinstance(result, Uncounted) for result in results):
            raise errors[0]
        return results

    def may_shrink(self, take: CounterSet) -> bool:
        """Whether its counters may hold hits that will be given back, by this replica or another.

        Other replicas have such requests, too: so it is true of all counters from which hits were, or could have been,
        given back here, and of every take over several shards.
        """
        late, before = self._shrinking
        if any(name in late or name in before for name in take.names):
            return True
        return len({self._shards.shard_of(name) for name in take.names}) > 1

    def _note_shrinking(self, names: Iterable[bytes]) -> None:
        late, _ = self._shrinking
        for name in names:
            if name not in late:
                late.add(name)
                self._shrinking_bytes += NAME_BYTES + len(name)
        if self._shrinking_bytes >= MAX_SHRINKING_BYTES:
            self._shrinking, self._shrinking_bytes = (set(), late), 0

    async def aclose(self) -> None:
        """Return once what is to be given back was, or is lost."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    async def _run(self, runs: _Runs, errors: list[StoreError]) -> Sequence[Sequence[TakeResult | Uncounted]]:
        async def run(shard: int, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
            try:
                return await self._shards.take(shard, groups)
            except StoreError as error:
                errors.append(error.with_traceback(None))
                return [Uncounted.of(sent=error.sent)] * len(groups)

        running = [run(shard, [group for *_, group in asked]) for shard, asked in runs.items()]
        return [await running[0]] if len(running) == 1 else await asyncio.gather(*running)

    def _pattern(self, take: CounterSet) -> _Pattern:
        names, shard_of = take.names, self._shards.shard_of
        first = shard_of(names[0])
        if len(names) == 1:
            return (first,)
        shards = [shard_of(name) for name in names]
        if shards.count(first) == len(shards):
            return (first,)
        return (first, *[-1 if name == before else shards[i] for i, (before, name) in enumerate(pairwise(names), 1)])

    def _order(self, take: CounterSet, pattern: _Pattern) -> ShardOrder:
        key = (id(take.checks), pattern)
        known = self._orders.get(key)
        if known is not None:
            return known[1]
        shards: list[int] = []
        for shard in pattern:
            shards.append(shards[-1] if shard < 0 else shard)
        order = shard_order(take.checks, shards, [shard < 0 for shard in pattern])
        self._orders.remember(key, (take.checks, order), 800 + 500 * len(take.checks))
        return order

    def _finished(self, request: ShardedRequest, returns: list[tuple[int, Return]]) -> Taken:
        levels = request.levels
        if not request.uncounted:
            returns += request.surplus(request.admitted)
            return TakeResult(request.admitted, tuple([level for level in levels if level is not None]))
        how = Uncounted.of(sent=request.sent)
        if all(level is None for level in levels):
            return how
        return PartlyCounted(
            request.admitted,
            tuple(levels),
            tuple(sorted(request.uncounted)),
            how,
            request.quotas_open,
            lambda admitted: self._finish(request, admitted),
        )

    def _finish(self, request: ShardedRequest, admitted: int) -> None:
        """Apply what waits for the verdict, and give back what was taken for calls that are not admitted."""
        self._give_back(request.surplus(admitted))
        for step in request.last_steps(admitted):
            self._start(self._apply(step.shard, request.part_of(step, admitted)))

    async def _apply(self, shard: int, group: Group) -> None:
        with suppress(StoreError):
            await self._shards.take(shard, [group])

    def _give_back(self, returns: Iterable[tuple[int, Return]]) -> None:
        by_shard: dict[int, list[Return]] = {}
        for shard, each in returns:
            by_shard.setdefault(shard, []).append(each)
        for shard, own in by_shard.items():
            self._start(self._send_back(shard, own))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _send_back(self, shard: int, returns: Sequence[Return]) -> None:
        with suppress(StoreError):  # what is not given back drains or ends by itself
            await self._shards.give_back(shard, returns)
