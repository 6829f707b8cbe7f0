"""Natural batching."""

import asyncio
from collections.abc import Sequence

import pytest

from extauth.limiter.counters import Counter, Group, Level, Take, Taken
from extauth.limiter.limiter import Decided, Limiter
from extauth.limiter.plan import Plan
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, Unit
from extauth.transport.batching import Batcher

PLAN = Plan(Take((Counter("c", Limit(1000, Unit.HOUR), 1),)), (0,), Labels(), None)


class Gate:
    """Counters that answer one batch each time they are let, and fail where they are told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None
        self._let = asyncio.Semaphore(0)

    def let(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._let.release()

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        self.batches.append(sum(group.calls for group in groups))
        await self._let.acquire()
        if self.error:
            raise self.error
        return [Taken(group.calls, (Level(0, 1),)) for group in groups]

    async def ping(self) -> None: ...


class Rig:
    def __init__(self, max_calls: int = 1000) -> None:
        self.gate = Gate()
        self.facts: list[tuple[Decided, Sequence[float]]] = []
        self.batcher = Batcher(Limiter(self.gate), lambda d, s: self.facts.append((d, s)), max_calls)

    def call(self, times: int) -> list[asyncio.Task[object]]:
        return [asyncio.create_task(self.batcher.decide(PLAN)) for _ in range(times)]

    async def until_batches(self, number: int) -> None:
        while len(self.gate.batches) < number:  # noqa: ASYNC110 - a pass of the loop, not a wait
            await asyncio.sleep(0)


async def test_calls_of_one_loop_pass_are_one_batch_and_later_ones_the_next() -> None:
    rig = Rig()
    first = rig.call(3)
    await rig.until_batches(1)
    second = rig.call(5)
    rig.gate.let()
    await asyncio.gather(*first)
    await rig.until_batches(2)
    rig.gate.let()
    await asyncio.gather(*second)
    assert rig.gate.batches == [3, 5]
    await asyncio.sleep(0)
    assert [len(seconds) for _, seconds in rig.facts] == [3, 5]


async def test_batches_are_bounded() -> None:
    rig = Rig(max_calls=4)
    calls = rig.call(10)
    rig.gate.let(3)
    await asyncio.gather(*calls)
    assert rig.gate.batches == [4, 4, 2]


async def test_an_error_fails_its_own_batch_alone() -> None:
    rig = Rig()
    rig.gate.error = RuntimeError("a bug")
    rig.gate.let()
    with pytest.raises(RuntimeError, match="a bug"):
        await rig.batcher.decide(PLAN)
    rig.gate.error = None
    rig.gate.let()
    assert await rig.batcher.decide(PLAN)


async def test_a_caller_that_gave_up_does_not_harm_the_others() -> None:
    rig = Rig()
    leaver, stayer = rig.call(2)
    await rig.until_batches(1)
    leaver.cancel()
    rig.gate.let()
    assert await stayer
    assert leaver.cancelled()
