"""Natural batching."""

import asyncio
from collections.abc import Sequence

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, LimitCheck, Mode, TakeResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, OnStoreFailure, Unit
from extauth.rules.rule_names import RuleName
from extauth.transport.batching import MAX_BATCH_US, Batcher
from extauth.transport.waiting import TURN_CALLS, Calls
from tests.support.clock import Seconds
from tests.support.codes import OK, OVER_LIMIT
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

    async def probe(self) -> None: ...


class Client:
    """A caller that notes what it gets; it has given up the calls whose tags are in `gone`."""

    def __init__(self) -> None:
        self.answered: dict[int, bytes | None] = {}
        self.flushes = 0
        self.gone: set[int] = set()

    def drop_ended(self, calls: Calls) -> None:
        kept = [i for i, tag in enumerate(calls.stream_ids) if tag not in self.gone]
        calls.plans[:] = [calls.plans[i] for i in kept]
        calls.stream_ids[:] = [calls.stream_ids[i] for i in kept]

    def answer(self, calls: Calls, messages: list[bytes | None]) -> None:
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


async def test_calls_of_one_loop_pass_are_one_batch_and_one_write() -> None:
    rig = Rig()
    rig.call(3)
    rig.call(2)
    rig.gate.let()
    await rig.until(answered=5)
    assert rig.gate.batches == [5]
    assert rig.client.flushes == 1
    assert [[calls for _, calls in fact.arrivals] for fact in rig.recorded.batches] == [[3, 2]]


async def test_a_fact_tells_the_stores_time_from_that_of_writing_the_answers() -> None:
    rig = Rig()

    class Slow(Client):
        def flush(self) -> None:
            rig.clock.now += 1

    slow = Slow()
    rig.call(1, caller=slow)
    await rig.until(batches=1)
    rig.clock.now += 0.25
    rig.gate.let()
    async with asyncio.timeout(10):
        while not rig.recorded.batches:
            await asyncio.sleep(0)
    (fact,) = rig.recorded.batches
    assert (fact.decided_at - fact.asked_at, fact.answered_at - fact.decided_at) == (0.25, 1)


async def test_what_arrives_while_batches_are_decided_is_the_next_batch() -> None:
    rig = Rig()
    for batches in (1, 2):
        rig.call(1)
        await rig.until(batches=batches)
    rig.call(2)
    rig.call(3)
    await asyncio.sleep(0)
    assert rig.gate.batches == [1, 1], "two are in flight, and no more"
    assert rig.batcher.room() == 20 - 5
    rig.gate.let(3)
    await rig.until(answered=7)
    assert rig.gate.batches == [1, 1, 5]
    assert rig.batcher.room() == 20


async def test_batches_are_bounded() -> None:
    rig = Rig(max_batch=4)
    for _ in range(5):
        rig.call(2)
    rig.gate.let(3)
    await rig.until(answered=10)
    assert rig.gate.batches == [4, 4, 2]


async def test_batches_are_bounded_by_what_their_counting_costs() -> None:
    rig = Rig(max_waiting=1000)
    rig.call(5, WIDE)
    rig.call(1)
    rig.call(30, WIDE)
    rig.gate.let(40)
    await rig.until(answered=36)
    per_batch = MAX_BATCH_US // WIDE.template.cost_us
    assert rig.gate.batches[0] in {per_batch, per_batch + 1}
    assert max(rig.gate.batches) <= per_batch + 1
    assert sum(rig.gate.batches) == 36


async def test_a_call_that_costs_more_than_a_batch_may_is_a_batch() -> None:
    rig = Rig()
    rig.call(1, VAST)
    rig.call(2)
    rig.call(1, VAST)
    rig.gate.let(4)
    await rig.until(answered=4)
    assert rig.gate.batches == [1, 2, 1]


async def test_callers_take_turns_where_much_waits() -> None:
    rig = Rig(max_waiting=2000)
    modest = Client()
    for _ in range(10):
        rig.call(100, WIDE)
    rig.call(1, caller=modest)
    rig.gate.let(1)
    await rig.until(answered=1)
    assert len(modest.answered) == 1
    rig.gate.let(1000)
    await rig.until(answered=1000)
    assert list(rig.client.answered) == sorted(rig.client.answered)


async def test_callers_with_many_cheap_calls_take_turns_too() -> None:
    rig = Rig(max_batch=400, max_waiting=20_000)
    clients = [Client() for _ in range(3)]
    for client in clients:
        rig.call(700, caller=client)
    rig.gate.let(1)
    await rig.until(batches=1)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while sum(len(client.answered) for client in clients) < 400:
            await asyncio.sleep(0)
    assert [len(client.answered) for client in clients] == [TURN_CALLS, TURN_CALLS, 0]


async def test_calls_that_have_ended_are_not_counted() -> None:
    rig = Rig()
    rig.client.gone = {0, 2, 3}
    rig.call(3)
    rig.call(1)
    rig.gate.let()
    await rig.until(answered=1)
    assert rig.gate.batches == [1]
    assert set(rig.client.answered) == {1}
    rig.client.gone = {4}
    rig.call(1)
    rig.call(1)
    rig.gate.let()
    await rig.until(answered=2)
    assert set(rig.client.answered) == {1, 5}


async def test_an_error_of_the_counters_gives_its_own_batch_the_failure_policy() -> None:
    rig = Rig()
    rig.gate.error = RuntimeError("a bug")
    rig.gate.let()
    rig.call(2)
    await rig.until(answered=2)
    rig.gate.error = None
    rig.gate.let()
    rig.call(1)
    await rig.until(answered=3)
    failure, success = (fact.store_error for fact in rig.recorded.batches)
    assert failure is not None
    assert (failure.kind, success) == ("internal", None)
    assert "RuntimeError: a bug in " in str(failure)


async def test_an_answer_that_cannot_be_read_denies_nothing_that_no_limit_could_deny() -> None:
    rig = Rig(policy=OnStoreFailure.DENY)
    rig.gate.garbled = True
    rig.gate.let()
    shadow = PlanTemplate((LimitCheck(LIMIT, 1, Mode.SHADOW),), ((0,),), None, Labels())
    rig.call(1, Plan((b"shadow",), shadow))
    await rig.until(answered=1)
    (message,) = rig.client.answered.values()
    assert message is not None
    assert int(RateLimitResponse.parse(message).overall_code) == OK


@pytest.mark.parametrize(
    ("policy", "code"), [(OnStoreFailure.ALLOW, OK), (OnStoreFailure.DENY, OVER_LIMIT), (OnStoreFailure.ERROR, None)]
)
async def test_an_answer_that_cannot_be_read_gives_its_own_batch_the_failure_policy(
    caplog: pytest.LogCaptureFixture, policy: OnStoreFailure, code: int | None
) -> None:
    rig = Rig(policy=policy)
    rig.gate.garbled = True
    rig.gate.let(2)
    rig.call(2)
    await rig.until(answered=2)
    rig.call(1)
    await rig.until(answered=3)
    assert rig.client.flushes == 2
    assert caplog.text.count("IndexError: ") == 1, "once a second is enough"
    for message in rig.client.answered.values():
        assert (None if message is None else int(RateLimitResponse.parse(message).overall_code)) == code
    rig.gate.garbled = False
    rig.gate.let()
    rig.call(1)
    await rig.until(answered=4)
    assert rig.client.answered[3] is not None


class Faulty(Client):
    """A caller whose connection has a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def answer(self, calls: Calls, messages: list[bytes | None]) -> None:
        if self._fault == "answer":
            raise RuntimeError("a bug")
        super().answer(calls, messages)

    def flush(self) -> None:
        if self._fault == "flush":
            raise RuntimeError("a bug")
        super().flush()


@pytest.mark.parametrize("fault", ["answer", "flush"])
async def test_a_fault_with_one_caller_keeps_no_answer_from_the_others(
    caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    rig = Rig()
    rig.call(1, caller=Faulty(fault))
    rig.call(1)
    rig.gate.let()
    await rig.until(answered=1)
    await asyncio.sleep(0)
    assert rig.client.flushes == 1
    assert "RuntimeError: a bug" in caplog.text
    (fact,) = rig.recorded.batches
    assert [group.calls for group in fact.groups] == [2]
