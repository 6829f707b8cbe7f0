"""Many requests over several shards at the same time, and what a plain oracle says of their answers.

Each request has three counters: its caller's own, that of a group of callers, and one that all share. One caller is
used up all the time. In front of each shard a request waits for a random number of turns of the event loop, while time
goes on.
"""

import asyncio
import random
from collections.abc import Sequence
from contextvars import ContextVar
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
_asking: ContextVar[int] = ContextVar("asking")


@dataclass
class Request:
    """`at_us` has the instant at which each counter was asked, by its shard's clock."""

    caller: int
    names: tuple[bytes, ...]
    limits: tuple[Limit, ...]
    cost: int
    at_us: dict[bytes, int] = field(default_factory=dict)
    admitted: bool | None = None


class Load:
    """`requests` are those that were made. With `together`, all counters of a request lie on its caller's shard."""

    def __init__(
        self, seed: int, shards: FakeShards, clock: Clock, prefix: str = "x", *, together: bool = False
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.requests: list[Request] = []
        self._clock = clock
        self._counters = SeveralShards(shards)
        self._prefix = prefix
        self._together = together
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

    async def run(self, requests: int, *, at_a_time: int = AT_A_TIME) -> None:
        """Make so many requests, some at a time."""
        waiting = [self._request() for _ in range(requests)]

        async def work() -> None:
            while waiting:
                await self._ask(waiting.pop())
                self._clock.sleep(self.random.randrange(8000))

        await asyncio.gather(*(work() for _ in range(at_a_time)))
        await self._counters.aclose()

    async def _ask(self, request: Request) -> None:
        _asking.set(len(self.requests))
        self.requests.append(request)
        checks = tuple([LimitCheck(limit, request.cost) for limit in request.limits])
        try:
            (taken,) = await self._counters.take([Group(CounterSet(request.names, checks), 1)])
        except StoreError:
            return
        if isinstance(taken, PartlyCounted):
            taken.finish(0)
        elif isinstance(taken, TakeResult):
            request.admitted = bool(taken.admitted)

    def _request(self) -> Request:
        caller = GREEDY if self.random.random() < GREEDY_PART else self.random.randrange(1, CALLERS)
        group = caller % GROUPS
        shards = [self._where[caller], self._where[CALLERS + group], self._where[-1]]
        names = tuple(
            [
                on(shards[0] if self._together else shard, name, self._prefix)
                for shard, name in zip(shards, (f"caller{caller}", f"group{group}", "all"), strict=True)
            ]
        )
        own = self._greedy if caller == GREEDY else self._own
        return Request(caller, names, (own, self._group, self._shared), self.random.choice([1, 1, 1, 2]))

    async def _pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    def _asked(self, _shard: int, groups: Sequence[Group]) -> None:
        request = self.requests[_asking.get()]
        for group in groups:
            request.at_us.update(dict.fromkeys(group.take.names, self._clock()))

    def _counted(self, _shard: int, groups: Sequence[Group]) -> None:
        request = self.requests[_asking.get()]
        for take, _ in groups:
            if isinstance(take, Part) and take.taken_at_us is not None:
                request.at_us.update(dict.fromkeys(take.names, take.taken_at_us))

    def judge(self) -> "Judgement":
        """Compare what was answered with what the limits would have admitted of just the admitted requests."""
        by_counter: dict[bytes, list[tuple[int, int, Request, Limit]]] = {}
        for number, request in enumerate(self.requests):
            for name, limit in zip(request.names, request.limits, strict=True):
                if name in request.at_us:
                    by_counter.setdefault(name, []).append((request.at_us[name], number, request, limit))
        over = 0
        has_room = dict.fromkeys(range(len(self.requests)), True)
        for asked in by_counter.values():
            plain = Plain(asked[0][3])
            for at_us, number, request, _ in sorted(asked, key=lambda each: (each[0], not each[2].admitted)):
                if request.admitted:
                    over += not plain.take(at_us, request.cost)
                else:
                    has_room[number] = has_room[number] and plain.fits(at_us, request.cost)
        denied = [number for number, request in enumerate(self.requests) if request.admitted is False]
        others = [request for request in self.requests if request.caller != GREEDY]
        too_much = sum(has_room[number] and self.requests[number].caller != GREEDY for number in denied)
        return Judgement(
            others=len(others), admitted=sum(bool(each.admitted) for each in others), over=over, too_much=too_much
        )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Of all requests, `over` were admitted beyond a limit, and of the `others`' `too_much` denied without need."""

    others: int
    admitted: int
    over: int
    too_much: int


def _limit(requests: int, algorithm: Algorithm) -> Limit:
    return Limit(requests, Unit.SECOND, algorithm, count_denied=False)
