"""Many requests over several shards at the same time, and what a plain oracle says of their answers.

Each request has three counters: its caller's own, that of a group of callers, and one that all share. One caller is
used up all the time. In front of each shard a request waits for a random number of turns of the event loop, while time
goes on.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from extauth.counters.several_shards import SeveralShards
from extauth.errors import StoreError
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Part, PartlyCounted, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import Clock
from tests.support.plain import Plain
from tests.support.shards import SHARDS, FakeShards, on

CALLERS, GROUPS, AT_A_TIME = 40, 4, 16
GREEDY = 0
GREEDY_PART = 0.3  # of all requests


@dataclass(eq=False)
class Request:
    """Of `calls` equal calls; `at_us` has the instant at which each counter was asked, by its shard's clock."""

    caller: int
    names: tuple[bytes, ...]
    limits: tuple[Limit, ...]
    cost: int
    calls: int
    at_us: dict[bytes, int] = field(default_factory=dict)
    admitted: int | None = None


class Load:
    """`requests` are those that were made. With `together`, all counters of a request lie on its caller's shard.

    The clocks of the shards are `skews_us` ahead of the `clock`.
    """

    def __init__(
        self,
        seed: int,
        shards: FakeShards,
        clock: Clock,
        prefix: str = "x",
        *,
        together: bool = False,
        skews_us: Sequence[int] = (0,) * SHARDS,
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.requests: list[Request] = []
        self._clock = clock
        self._skews_us = skews_us
        self._counters = SeveralShards(shards)
        self._prefix = prefix
        self._together = together
        self._of_name: dict[int, Request] = {}  # by the identity of the name
        shards.pause = self._pause
        shards.asked = self._asked
        shards.counted = self._counted
        self._where = [self.random.randrange(SHARDS) for _ in range(CALLERS)]
        self._where += [*(self.random.randrange(SHARDS - 1) for _ in range(GROUPS)), SHARDS - 1]
        own, group, shared = (self.random.choice(list(Algorithm)) for _ in range(3))
        self._own = _limit(7, own)
        self._greedy = _limit(1, own)
        self._group = _limit(45, group)
        self._shared = _limit(140, shared)

    async def run(self, requests: int, *, at_a_time: int = AT_A_TIME, in_batches: bool = False) -> None:
        """Make so many requests, some at a time; each alone and of one call, or in batches, and of several calls."""
        waiting = [self._request(self.random.randrange(1, 4) if in_batches else 1) for _ in range(requests)]

        async def work() -> None:
            while waiting:
                number = self.random.randrange(1, 4) if in_batches else 1
                batch = [waiting.pop() for _ in range(min(number, len(waiting)))]
                await self._ask(batch)
                self._clock.sleep(self.random.randrange(8000) * sum(request.calls for request in batch))

        await asyncio.gather(*(work() for _ in range(at_a_time)))
        await self._counters.aclose()

    async def _ask(self, batch: Sequence[Request]) -> None:
        self.requests += batch
        try:
            takens = await self._counters.take([_group(request) for request in batch])
        except StoreError:
            return
        for request, taken in zip(batch, takens, strict=True):
            if isinstance(taken, PartlyCounted):
                taken.finish(0)
            elif isinstance(taken, TakeResult):
                request.admitted = taken.admitted

    def _request(self, calls: int) -> Request:
        caller = GREEDY if self.random.random() < GREEDY_PART else self.random.randrange(1, CALLERS)
        group = caller % GROUPS
        shards = [self._where[caller], self._where[CALLERS + group], self._where[-1]]
        names = [
            on(shards[0] if self._together else shard, name, self._prefix)
            for shard, name in zip(shards, (f"caller{caller}", f"group{group}", "all"), strict=True)
        ]
        own = self._greedy if caller == GREEDY else self._own
        limits = (own, self._group, self._shared)
        request = Request(caller, tuple(names), limits, self.random.choice([1, 1, 1, 2]), calls)
        self._of_name.update((id(name), request) for name in names)
        return request

    async def _pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    def _asked(self, shard: int, groups: Sequence[Group]) -> None:
        self._note([name for take, _ in groups for name in take.names], self._clock() + self._skews_us[shard])

    def _counted(self, _shard: int, groups: Sequence[Group]) -> None:
        for take, _ in groups:
            if isinstance(take, Part) and take.taken_at_us is not None:
                self._note(take.names, take.taken_at_us)

    def _note(self, names: Sequence[bytes], at_us: int) -> None:
        for name in names:
            self._of_name[id(name)].at_us[name] = at_us

    def judge(self) -> "Judgement":
        """Compare what was answered with what the limits would have admitted of just the admitted requests."""
        takes: dict[bytes, list[tuple[int, bool, int]]] = {}  # instants, whether it is a look, numbers of requests
        limits: dict[bytes, Limit] = {}
        for number, request in enumerate(self.requests):
            for name, limit in zip(request.names, request.limits, strict=True):
                if name in request.at_us and request.admitted is not None:
                    limits[name] = limit
                    looks = [False] * (request.admitted > 0) + [True] * (request.admitted < request.calls)
                    takes.setdefault(name, []).extend((request.at_us[name], look, number) for look in looks)
        over = 0
        denied = {number for own in takes.values() for _, look, number in own if look}
        with_room = set(denied)
        for name, own in takes.items():
            plain = Plain(limits[name])
            for at_us, look, number in sorted(own):
                request = self.requests[number]
                if not look:
                    over += sum(not plain.take(at_us, request.cost) for _ in range(request.admitted or 0))
                elif not plain.fits(at_us, request.cost):
                    with_room.discard(number)
        others = [request for request in self.requests if request.caller != GREEDY]
        too_much = sum(self.requests[number].caller != GREEDY for number in with_room)
        return Judgement(
            others=len(others), admitted=sum(bool(each.admitted) for each in others), over=over, too_much=too_much
        )


def _group(request: Request) -> Group:
    checks = tuple([LimitCheck(limit, request.cost) for limit in request.limits])
    return Group(CounterSet(request.names, checks), request.calls)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Of all requests, `over` were admitted beyond a limit, and of the `others`' `too_much` denied without need."""

    others: int
    admitted: int
    over: int
    too_much: int


def _limit(requests: int, algorithm: Algorithm) -> Limit:
    return Limit(requests, Unit.SECOND, algorithm, count_denied=False)
