"""From facts to records, and their way through a bounded queue to a receiver that may be slow, or away."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from extauth.errors import StoreError
from extauth.limiter.counters import Source, TakeResult, Uncounted
from extauth.limiter.facts import BatchFact, GroupResult, SampledCall, ShedFact
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.model import OnStoreFailure
from extauth.rules.rule_names import RuleName
from extauth.telemetry.tracing import MAX_RULES, BatchRecord, CallRecord, QueueLimits, Tracing
from tests.support.facts import batch
from tests.support.wait import until_async

PARENT = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
S = 1_000_000_000


def group(*rules: str, **changes: Any) -> GroupResult:  # noqa: ANN401 - as _replace takes them
    template = PlanTemplate((), (), "free", Labels(), "d")
    plan = Plan((), template, Tally(tuple(RuleName("d", rule) for rule in rules)))
    return GroupResult(plan, 3, TakeResult(1, ()))._replace(**changes)


def sampled(result: GroupResult, code: Code | None = Code.OK, *, span: int = 1, arrived: float = -1.0) -> SampledCall:
    return SampledCall(PARENT._replace(span_id=f"{span:016x}"), arrived, result, code)


def fact(*calls: SampledCall, error: StoreError | None = None) -> BatchFact:
    """A batch that arrived at -1 s, and was asked about from -0.5 to -0.25 s, and answered at 0."""
    groups = list({id(call.group): call.group for call in calls}.values())
    return replace(batch(*groups, error=error), asked_at=-0.5, decided_at=-0.25, sampled=calls)


class Kept:
    """A receiver that keeps what it gets, holds while it is held, and fails while it is broken."""

    def __init__(self) -> None:
        self.sent: list[CallRecord] = []
        self.sizes: list[int] = []
        self.fault: str | Exception = ""
        self.holding = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def send(self, calls: Sequence[CallRecord]) -> str:
        self.holding.set()
        assert self.open.wait(20)
        if isinstance(self.fault, Exception):
            raise self.fault
        if not self.fault:
            self.sent += calls
            self.sizes.append(len(calls))
        return self.fault

    def close(self) -> None:
        self.open.set()


@asynccontextmanager
async def tracing(receiver: Kept, limits: QueueLimits, written: list[str | None]) -> AsyncIterator[Tracing]:
    made = Tracing(receiver, written.append, limits, clock=lambda: 0.0, unix_ns=lambda: 100 * S)
    made.start()
    yield made
    await made.aclose()


async def records(*facts: BatchFact | ShedFact) -> list[CallRecord]:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(), written) as made:
        for each in facts:
            made.batch_decided(each) if isinstance(each, BatchFact) else made.call_shed(each)
    assert written == []
    return receiver.sent


async def test_a_record_has_what_was_decided_and_the_times_of_day() -> None:
    counted = group("a", "b", "a")
    (record,) = await records(fact(sampled(counted, Code.OVER_LIMIT)))
    assert record == CallRecord(
        parent=PARENT._replace(span_id=f"{1:016x}"),
        arrived_ns=99 * S,
        answered_ns=100 * S,
        domain="d",
        tier="free",
        rules=("a", "b"),
        code=Code.OVER_LIMIT,
        source=Source.STORE,
        given=None,
        sent=True,
        batch=BatchRecord(99 * S + S // 2, 99 * S + 3 * S // 4, 3),
    )


@pytest.mark.parametrize(
    ("changes", "source", "sent"),
    [
        ({}, Source.STORE, True),
        ({"taken": TakeResult(0, (), Source.DENIAL_CACHE)}, Source.DENIAL_CACHE, False),
        ({"taken": TakeResult(0, (), Source.NO_COUNTER)}, Source.NO_COUNTER, False),
        ({"taken": TakeResult(0, (), Source.LOCAL), "without_store": Uncounted.UNSENT}, Source.LOCAL, False),
        ({"taken": TakeResult(0, (), Source.LOCAL), "without_store": Uncounted.SENT}, Source.LOCAL, True),
        ({"taken": None, "given": OnStoreFailure.DENY, "without_store": Uncounted.SENT}, Source.FAILURE_POLICY, True),
        ({"taken": None, "given": OnStoreFailure.DENY}, Source.FAILURE_POLICY, False),
    ],
)
async def test_a_record_says_whether_the_store_was_asked(changes: dict[str, Any], source: Source, sent: bool) -> None:
    (record,) = await records(fact(sampled(group(**changes))))
    assert (record.source, record.sent) == (source, sent)
    assert record.given == changes.get("given")


async def test_a_batch_that_failed_has_the_store_s_error() -> None:
    failed = group(taken=None, without_store=Uncounted.SENT, given=OnStoreFailure.ERROR)
    (record,) = await records(fact(sampled(failed, None), error=StoreError("timeout", "no reply in 100 ms")))
    assert record.code is None
    assert record.batch is not None
    assert record.batch[3:] == ("timeout", "no reply in 100 ms")


async def test_a_call_that_was_shed_has_the_reason_and_no_batch() -> None:
    given = group(taken=None, given=OnStoreFailure.DENY, without_store=Uncounted.SENT)
    (record,) = await records(
        ShedFact("timeout", given, True),
        ShedFact("timeout", given, True, sampled(given, Code.OVER_LIMIT, arrived=-2.0)),
    )
    assert (record.shed, record.batch, record.sent) == ("timeout", None, True)
    assert (record.arrived_ns, record.answered_ns) == (98 * S, 100 * S)


async def test_a_record_has_few_rules() -> None:
    (record,) = await records(fact(sampled(group(*map(str, range(100))))))
    assert record.rules == tuple(map(str, range(MAX_RULES)))


async def test_what_waits_is_sent_when_the_service_stops() -> None:
    calls = [sampled(group(), span=number) for number in range(100)]
    sent = await records(*(fact(call) for call in calls))
    assert [record.parent for record in sent] == [call.parent for call in calls]


async def test_calls_are_sent_together_and_no_more_than_a_request_may_hold() -> None:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(max_batch=10), written) as made:
        made.batch_decided(fact(*[sampled(group(), span=number) for number in range(25)]))
        await until_async(lambda: len(receiver.sent) == 25)
    assert receiver.sizes == [10, 10, 5]


async def test_calls_are_sent_after_a_while_though_they_are_few() -> None:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(delay_s=0.01), written) as made:
        made.batch_decided(fact(sampled(group())))
        await until_async(lambda: len(receiver.sent) == 1)


async def test_calls_beyond_the_queue_are_dropped_and_that_is_written_once() -> None:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(max_calls=20, max_batch=10), written) as made:
        receiver.open.clear()
        made.batch_decided(fact(*[sampled(group(), span=number) for number in range(10)]))
        await asyncio.to_thread(receiver.holding.wait, 20)
        made.batch_decided(fact(*[sampled(group(), span=number) for number in range(10, 100)]))
        receiver.open.set()
        await until_async(lambda: len(receiver.sent) == 30)
        await until_async(lambda: len(written) == 2)
    assert [int(record.parent.span_id, 16) for record in receiver.sent] == [*range(30)]
    assert written == ["more calls are sampled than can be sent: have Envoy sample fewer", None]


@pytest.mark.parametrize("fault", ["nobody answers", ValueError("a fault of ours")], ids=["reported", "raised"])
async def test_a_receiver_that_fails_is_written_of_once_and_again_when_it_is_back(fault: str | Exception) -> None:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(max_batch=1), written) as made:
        receiver.fault = fault
        made.batch_decided(fact(*[sampled(group(), span=number) for number in range(5)]))
        await until_async(lambda: len(written) == 1)
        await until_async(lambda: made.waiting() == 0)
        receiver.fault = ""
        made.batch_decided(fact(sampled(group())))
        await until_async(lambda: len(receiver.sent) == 1)
    assert written == ["nobody answers" if isinstance(fault, str) else "ValueError: a fault of ours", None]


async def test_a_receiver_that_hangs_does_not_hold_the_service_up() -> None:
    receiver, written = Kept(), list[str | None]()
    async with tracing(receiver, QueueLimits(max_batch=1), written) as made:
        receiver.open.clear()
        receiver.fault = "given up"
        made.batch_decided(fact(sampled(group())))
        await asyncio.to_thread(receiver.holding.wait, 20)
    assert receiver.sent == []
