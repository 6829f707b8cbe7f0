"""Natural batching."""

import asyncio

from extauth.transport.batching import MAX_BATCH_US
from extauth.transport.waiting import TURN_CALLS
from tests.transport.rig import VAST, WIDE, Client, Rig


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

    async def answered(calls: int) -> None:
        async with asyncio.timeout(10):
            while sum(len(client.answered) for client in clients) < calls:
                await asyncio.sleep(0)

    rig.gate.let(1)
    await answered(400)
    assert [len(client.answered) for client in clients] == [TURN_CALLS, TURN_CALLS, 0]
    rig.gate.let(1000)
    await answered(2100)


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
