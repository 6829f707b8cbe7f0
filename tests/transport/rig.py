"""A batcher between counters that answer when they are let, and callers that note what they get."""

import asyncio
from collections.abc import Sequence

from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, LimitCheck, TakeResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.templates import Answer
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, OnStoreFailure, Unit
from extauth.rules.rule_names import RuleName
from extauth.transport.batching import Batcher
from extauth.transport.waiting import Calls
from tests.support.clock import Seconds
from tests.support.facts import Recorded
from tests.support.service import decider_of

LIMIT = Limit(1000, Unit.HOUR)


def plan_of(counters: int) -> Plan:
    names = tuple(b"c%d" % i for i in range(counters))
    template = PlanTemplate((LimitCheck(LIMIT, 1),) * counters, tuple((i,) for i in range(counters)), None, Labels())
    return Plan(names, template, Tally((RuleName("d", "r"),) * counters))


PLAN, WIDE, VAST = plan_of(1), plan_of(100), plan_of(2000)


class Gate:
    """Counters that answer one batch each time they are let, and fail where they are told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None
        self.garbled = False
        self._let = asyncio.Semaphore(0)

    def let(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._let.release()

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        self.batches.append(sum(group.calls for group in groups))
        await self._let.acquire()
        if self.error:
            raise self.error
        return [TakeResult(g.calls, () if self.garbled else (WindowUsage(0, 1),) * len(g.take.names)) for g in groups]

    async def connect(self) -> None: ...

    async def probe(self) -> None: ...


class Client:
    """A caller that notes what it gets; it has given up the calls whose tags are in `gone`."""

    def __init__(self) -> None:
        self.answered: dict[int, Answer] = {}
        self.flushes = 0
        self.gone: set[int] = set()

    def drop_ended(self, calls: Calls) -> None:
        kept = [i for i, tag in enumerate(calls.stream_ids) if tag not in self.gone]
        calls.plans[:] = [calls.plans[i] for i in kept]
        calls.stream_ids[:] = [calls.stream_ids[i] for i in kept]

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        self.answered.update(zip(calls.stream_ids, messages, strict=True))

    def expire(self, calls: Calls, now: float) -> None:
        raise AssertionError("no call here has a time of its own")

    def flush(self) -> None:
        self.flushes += 1


class Rig:
    def __init__(
        self, max_batch: int = 1000, policy: OnStoreFailure = OnStoreFailure.ALLOW, max_waiting: int = 20
    ) -> None:
        self.clock = Seconds()
        self.gate = Gate()
        self.recorded = Recorded()
        decider = decider_of(counters=self.gate, options=LimiterOptions(on_store_failure=policy))
        self.batcher = Batcher(decider, [self.recorded], max_batch=max_batch, max_waiting=max_waiting, clock=self.clock)
        self.client = Client()
        self._tag = 0

    def call(self, times: int, plan: Plan = PLAN, caller: Client | None = None) -> None:
        calls = Calls(caller or self.client, 0)
        for _ in range(times):
            calls.plans.append(plan)
            calls.stream_ids.append(self._tag)
            self._tag += 1
        self.batcher.submit(calls)

    async def until(self, answered: int = 0, batches: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.client.answered) < answered or len(self.gate.batches) < batches:
                await asyncio.sleep(0)
