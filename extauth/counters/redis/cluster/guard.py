"""The circuit breakers of a cluster, one for each master: while one is away, the others count on."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple

from extauth.counters.breaker import Breaker, BreakerState, worst
from extauth.counters.local import LocalCounters
from extauth.counters.redis.cluster.by_key import take_by_key
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.master import Master
from extauth.errors import StoreError
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.counters import Group, Owed, Part, Return, Taken, TakeResult, Uncounted

MOST_NAMED: Final = 3  # masters that are down, in a message


class _BreakerOptions(NamedTuple):
    """What the masters' breakers have in common, as Breaker describes it."""

    failed: Callable[[StoreError], None]
    clock: Callable[[], float]
    chance: Callable[[], float]


class _GuardedMaster:
    """A master behind its breaker. It is told first what is owed, and `local` what it reports."""

    def __init__(
        self,
        cluster: ClusterCounters,
        master: Master,
        local: LocalCounters,
        changed: Callable[[], None],
        options: _BreakerOptions,
    ) -> None:
        self.master = master
        self.breaker = Breaker(self, self._breaker_changed, options.failed, clock=options.clock, chance=options.chance)
        # The first calls are its trial, unless a look comes first: they wait for no connection.
        self.breaker.state = BreakerState.OPEN
        self.tried = False
        self.waiting: list[tuple[Sequence[Group], asyncio.Future[Sequence[TakeResult | Uncounted]]]] = []
        self._cluster = cluster
        self._local = local
        self._changed = changed

    @property
    def state(self) -> BreakerState:
        """The breaker's state; a master that was not tried yet is not taken for one that is away."""
        return self.breaker.state if self.tried else BreakerState.CLOSED

    async def take(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As breaker.Store; what the breaker calls."""
        if self._local.owes:
            await self._local.settle_before(groups, self)
        receipts = any(group.take.__class__ is Part for group in groups)
        takens = await self._cluster.take_at(self.master, groups, receipts=receipts)
        counted = [taken for taken in takens if isinstance(taken, TakeResult)]
        if len(counted) == len(takens):
            self._local.remember(groups, counted)
        else:
            told = [group for group, taken in zip(groups, takens, strict=True) if isinstance(taken, TakeResult)]
            self._local.remember(told, counted)
        return takens

    async def settle(self, owed: Sequence[Owed]) -> None:
        """As SharedCounters."""
        await self._cluster.settle_at(self.master, owed)

    async def settle_some(self) -> bool:
        """Settle a part of what is owed to this master's counters; raises StoreError. Whether there may be more."""
        topology = self._cluster.topology
        debtors = self._local.some_debtors(lambda name: topology.master_of(name) is self.master)
        await self._local.settle(debtors, self)
        return bool(debtors)

    async def connect(self) -> None:
        """As breaker.Store."""
        await self.master.pipe.connect()

    async def probe(self) -> None:
        """As breaker.Store."""
        await self._cluster.probe_at(self.master)

    def _breaker_changed(self) -> None:
        if self.breaker.state is not BreakerState.HALF_OPEN:
            self.tried = True
        self._changed()


class ClusterGuard:
    """`counters.breaker.Guard` and `counters.shards.Shards` of a cluster.

    It is closed if each master's breaker is and each slot has a master. Calls of one turn of the event loop go to a
    master together. `changed` is called after each change of `state`, and perhaps in between, and `failed` for each
    batch, trial and probe that a master fails. `clock` and `chance` are the breakers'.
    """

    def __init__(
        self,
        cluster: ClusterCounters,
        local: LocalCounters,
        shard_of: ShardOf,
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[StoreError], None] = lambda _error: None,
        *,
        clock: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.shard_of: Callable[[bytes], int] = shard_of
        self._cluster = cluster
        self._topology = cluster.topology
        self._topology.changed = self._others_serve
        self._topology.troubled = lambda: self.state is not BreakerState.CLOSED
        self._local = local
        self._changed = changed
        self._failed = failed
        self._breakers = _BreakerOptions(failed, clock, chance)
        self._guarded: dict[Master, _GuardedMaster] = {}
        self._looked = False
        self._ending: set[asyncio.Task[None]] = set()
        self._others_serve()

    @property
    def state(self) -> BreakerState:
        """As Guard: open if a part of the store is not asked."""
        if not self._looked or not self._guarded or self._topology.unserved():
            return BreakerState.OPEN
        return worst(each.state for each in self._guarded.values())

    @property
    def registry_state(self) -> BreakerState:
        """As Guard."""
        return self.state_of(self._cluster.heartbeats_key)

    def state_of(self, name: bytes) -> BreakerState:
        """Whether the master is asked that serves the slot of a key."""
        master = self._topology.master_of(name)
        guarded = None if master is None else self._guarded.get(master)
        return BreakerState.OPEN if guarded is None else guarded.state

    @property
    def cause(self) -> StoreError | None:
        """As Guard; names the masters that are away, or the first of them."""
        if not self._guarded:
            return self._topology.failure
        causes = [each.breaker.cause for each in self._guarded.values() if each.state is not BreakerState.CLOSED]
        errors = [cause for cause in causes if cause is not None]
        reasons = [str(error) for error in errors[:MOST_NAMED]]
        if len(errors) > MOST_NAMED:
            reasons.append(f"and {len(errors) - MOST_NAMED} more")
        if unserved := self._topology.unserved():
            reasons.append(f"no master of the Redis Cluster serves {unserved} of its slots")
        if not reasons:
            return None
        away = f"{len(errors)} of {len(self._guarded)} masters: " if errors else ""
        return StoreError(errors[0].kind if errors else "reply", away + "; ".join(reasons))

    @property
    def masters(self) -> int:
        """The number of masters."""
        return len(self._guarded)

    def master_of(self, name: bytes) -> Master | None:
        """The master that serves a counter's slot; None where nobody does."""
        return self._topology.master_of(name)

    async def take_whole(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As GuardedCounters, of groups whose counters lie on shards of one master; no group is a Part."""
        guarded = self._guarded_of(groups[0].take.names[0])
        return [Uncounted.UNSENT] * len(groups) if guarded is None else await guarded.breaker.take(groups)

    def is_split(self, names: Sequence[bytes]) -> bool:
        """Whether counters of one slot may lie on two masters, so that no single run can take from all of them."""
        return len(names) > 1 and self._topology.is_split(names[0])

    async def take_by_key(self, group: Group) -> Taken:
        """Take from counters of such a slot, one after the other; the group is no Part."""
        guarded = self._guarded_of(group.take.names[0])
        if guarded is None or guarded.breaker.state is not BreakerState.CLOSED:
            return Uncounted.UNSENT
        try:
            return await take_by_key(self._cluster, guarded.master, group)
        except StoreError as error:
            return Uncounted.of(sent=error.sent)

    async def take(self, _shard: int, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As Shards."""
        guarded = self._guarded_of(groups[0].take.names[0])
        if guarded is None:
            return [Uncounted.UNSENT] * len(groups)
        loop = asyncio.get_running_loop()
        if not guarded.waiting:
            loop.call_soon(self._start, guarded)
        future: asyncio.Future[Sequence[TakeResult | Uncounted]] = loop.create_future()
        guarded.waiting.append((groups, future))
        return await future

    async def give_back(self, _shard: int, returns: Sequence[Return]) -> None:
        """As Shards."""
        guarded = self._guarded_of(returns[0].name)
        if guarded is None or guarded.breaker.state is not BreakerState.CLOSED:
            raise StoreError("reply", "the master that would take hits back is away", sent=False)
        await self._cluster.give_back_at(guarded.master, returns)
        self._local.take_back(returns)

    async def look(self) -> None:
        """As Guard; before the first one has ended nothing is known of the masters."""
        if not self._guarded:
            try:
                await self._topology.refresh()
            except StoreError as error:
                self._failed(error)
        await asyncio.gather(*(each.breaker.look() for each in self._guarded.values()))
        if not self._looked or not self._guarded:
            self._looked = True
            self._changed()

    async def settle_some(self) -> bool:
        """Settle a part of what is owed to masters that count. Whether there may be more."""
        more = False
        for each in list(self._guarded.values()) if self._local.owes else ():
            if each.breaker.state is BreakerState.CLOSED:
                with suppress(StoreError):  # the next batch finds out, too
                    more |= await each.settle_some()
        return more

    async def aclose(self) -> None:
        """Give up trials that are under way."""
        for each in self._guarded.values():
            await each.breaker.aclose()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _guarded_of(self, name: bytes) -> _GuardedMaster | None:
        master = self._topology.master_of(name)
        if master is None:
            self._topology.refresh_soon()
            return None
        return self._guarded[master]

    def _start(self, guarded: _GuardedMaster) -> None:
        waiting, guarded.waiting = guarded.waiting, []
        task = asyncio.create_task(self._take(guarded, waiting))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _take(
        self,
        guarded: _GuardedMaster,
        waiting: Sequence[tuple[Sequence[Group], "asyncio.Future[Sequence[TakeResult | Uncounted]]"]],
    ) -> None:
        """Have those that wait answered; the same fate is theirs."""
        try:
            takens = await guarded.breaker.take([group for groups, _ in waiting for group in groups])
        except StoreError as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for groups, future in waiting:
            if not future.done():
                future.set_result(takens[at : at + len(groups)])
            at += len(groups)

    def _others_serve(self) -> None:
        masters = self._topology.masters.values()
        for master in [each for each in self._guarded if each not in masters]:
            task = asyncio.create_task(self._guarded.pop(master).breaker.aclose())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for master in masters:
            guarded = self._guarded.get(master)
            if guarded is None:
                self._guarded[master] = _GuardedMaster(
                    self._cluster, master, self._local, self._master_changed, self._breakers
                )
            elif guarded.breaker.state is not BreakerState.CLOSED:
                guarded.breaker.retry()
        self._master_changed()

    def _master_changed(self) -> None:
        if self._looked:
            if self.state is not BreakerState.CLOSED:
                self._topology.refresh_soon()
            self._changed()
