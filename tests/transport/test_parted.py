"""Batches apart for each part of the store."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, LimitCheck, TakeResult
from extauth.limiter.plan import NO_TALLY, Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rules.model import OnStoreFailure
from extauth.transport.parted import MOST_PARTS, PartedBatcher
from extauth.transport.waiting import Calls
from tests.support.service import decider_of
from tests.support.wait import until_async
from tests.transport.rig import LIMIT, Client


class Parts:
    """Counters of several parts; a part answers nothing while it is among the `silent`."""

    def __init__(self) -> None:
        self.silent: set[bytes] = set()
        self.batches: list[tuple[bytes, int]] = []
        self.spoken = asyncio.Event()

    def speak(self) -> None:
        self.silent.clear()
        self.spoken.set()

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        (part,) = {part_of(group.take.names) for group in groups}
        self.batches.append((part, sum(group.calls for group in groups)))
        if part in self.silent:
            await self.spoken.wait()
        return [TakeResult(group.calls, (WindowUsage(0, 1),)) for group in groups]

    async def connect(self) -> None: ...

    async def probe(self) -> None: ...


def part_of(names: Sequence[bytes]) -> bytes:
    return names[0][:1]


def plan(name: bytes) -> Plan:
    return Plan((name,), PlanTemplate((LimitCheck(LIMIT, 1),), ((0,),), None, Labels()), NO_TALLY)


class Rig:
    def __init__(self, max_waiting: int = 20) -> None:
        self.counters = Parts()
        decider = decider_of(counters=self.counters, options=LimiterOptions(on_store_failure=OnStoreFailure.ERROR))
        self.batcher = PartedBatcher(decider, (), part_of=part_of, max_waiting=max_waiting)
        self.client = Client()
        self._called = 0

    def call(self, *names: bytes) -> None:
        """Calls that arrive together."""
        calls = Calls(self.client, perf_counter())
        for name in names:
            calls.plans.append(plan(name) if name else Plan((), PlanTemplate((), (), None, Labels()), NO_TALLY))
            calls.stream_ids.append(self._called)
            self._called += 1
        self.batcher.submit(calls)

    async def until_answered(self, *ids: int) -> None:
        await until_async(lambda: set(self.client.answered) == set(ids), lambda: self.client.answered)


async def test_calls_are_answered_as_their_own_part_replies() -> None:
    rig = Rig()
    rig.counters.silent.add(b"b")
    rig.call(b"a1", b"b1", b"", b"a2", b"b2")
    await rig.until_answered(0, 2, 3)
    for _ in range(5):
        rig.call(b"b3", b"a3")
    await rig.until_answered(0, 2, 3, 6, 8, 10, 12, 14)
    rig.counters.speak()
    await rig.until_answered(*range(15))
    assert rig.counters.batches[:2] == [(b"a", 2), (b"b", 2)]


async def test_calls_of_one_part_stay_one_batch() -> None:
    rig = Rig()
    rig.call(b"a1", b"a2")
    rig.call(b"a1")
    await rig.until_answered(0, 1, 2)
    assert rig.counters.batches == [(b"a", 3)]
    assert rig.client.flushes == 1


async def test_the_calls_that_wait_for_any_part_are_bounded_together() -> None:
    rig = Rig(max_waiting=3)
    rig.counters.silent |= {b"a", b"b"}
    for _ in range(2):  # two batches of a part may be in flight
        rig.call(b"a", b"b")
        await until_async(lambda: rig.batcher.room() == 3)
    rig.call(b"a", b"b")
    assert rig.batcher.room() == 1
    rig.call(b"b")
    assert rig.batcher.room() == 0
    rig.client.gone = {5, 6}
    await until_async(lambda: rig.batcher.room() == 2)
    rig.counters.speak()
    await rig.until_answered(0, 1, 2, 3, 4)


async def test_parts_that_are_gone_are_forgotten() -> None:
    rig = Rig()
    for i in range(3 * MOST_PARTS):
        rig.call(bytes([i]))
        await rig.until_answered(*range(i + 1))
    assert len(rig.counters.batches) == 3 * MOST_PARTS
