"""When the store is asked, and when it is not."""

import asyncio
from collections.abc import Sequence

import pytest

from extauth.counters.breaker import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SETTLED_S,
    TRIAL_CALLS,
    TRIAL_WAIT_S,
    Breaker,
    BreakerState,
)
from extauth.errors import StoreError
from extauth.limiter.counters import Group, TakeResult, Uncounted
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.takes import take
from tests.support.wait import until_async

LIMIT = Limit(1_000_000, Unit.HOUR, Algorithm.GCRA, count_denied=False)
SENT, UNSENT = Uncounted.SENT, Uncounted.UNSENT


def group(calls: int = 1, name: bytes = b"a") -> Group:
    return Group(take((name, LIMIT, 1)), calls)


class Store:
    """Counters that fail as the test says, and what they were asked."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.held: asyncio.Future[None] | None = None
        self.errors_after: dict[int, StoreError] = {}  # by how many batches came before
        self.asked: list[list[int]] = []
        self.probes = 0
        self.connecting: asyncio.Future[None] | None = None

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        error = self.errors_after.get(len(self.asked))
        self.asked.append([each.calls for each in groups])
        if error is not None:
            raise error
        if self.held is not None:
            await self.held
        if self.error is not None:
            raise self.error
        return [TakeResult(each.calls, ()) for each in groups]

    async def connect(self) -> None:
        if self.connecting is not None:
            await self.connecting

    async def probe(self) -> None:
        self.probes += 1
        if self.error is not None:
            raise self.error


class Rig:
    """A breaker in front of a store, with a clock, and no chance in its pauses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store = Store()
        self.states: list[BreakerState] = []
        self.breaker = Breaker(self.store, self._changed, clock=lambda: self.now, chance=lambda: 0.0)

    def _changed(self) -> None:
        self.states.append(self.breaker.state)

    async def open(self, *, sent: bool = True) -> None:
        self.store.error = StoreError("timeout", "gone", sent=sent)
        with pytest.raises(StoreError):
            await self.breaker.take([group()])
        assert self.breaker.state is BreakerState.OPEN
        self.store.asked.clear()


async def test_it_asks_while_the_store_answers() -> None:
    rig = Rig()
    assert await rig.breaker.take([group(3)]) == [TakeResult(3, ())]
    assert rig.states == []


async def test_after_a_failure_nothing_is_asked_until_the_pause_is_over() -> None:
    rig = Rig()
    await rig.open()
    for _ in range(3):
        assert await rig.breaker.take([group(), group()]) == [UNSENT, UNSENT]
    assert rig.store.asked == []
    rig.now += FIRST_PAUSE_S
    rig.store.error = None
    assert await rig.breaker.take([group()]) == [TakeResult(1, ())]
    assert rig.states == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]


async def test_a_pause_ends_when_there_is_reason_to_think_that_the_store_is_back() -> None:
    rig = Rig()
    await rig.open()
    rig.store.error = None
    rig.breaker.retry()
    assert rig.store.asked == []
    assert await rig.breaker.take([group()]) == [TakeResult(1, ())]
    assert rig.breaker.state is BreakerState.CLOSED


async def test_pauses_double_up_to_the_longest() -> None:
    rig = Rig()
    await rig.open()
    pause_s = FIRST_PAUSE_S
    for _ in range(8):
        rig.now += pause_s - 0.001
        assert await rig.breaker.take([group()]) == [UNSENT]
        assert rig.store.asked == []
        rig.now += 0.002
        assert await rig.breaker.take([group()]) == [SENT]
        assert rig.store.asked == [[1]]
        rig.store.asked.clear()
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@pytest.mark.parametrize(("closed_s", "pause_s"), [(SETTLED_S - 1, 4 * FIRST_PAUSE_S), (SETTLED_S + 1, FIRST_PAUSE_S)])
async def test_the_pause_is_short_again_only_once_it_was_closed_for_long(closed_s: float, pause_s: float) -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    await rig.breaker.take([group()])
    rig.store.error = None
    rig.now += 2 * FIRST_PAUSE_S
    await rig.breaker.take([group()])
    assert rig.breaker.state is BreakerState.CLOSED
    rig.now += closed_s
    await rig.open()
    rig.now += pause_s - 0.001
    await rig.breaker.take([group()])
    assert rig.store.asked == []
    rig.now += 0.002
    await rig.breaker.take([group()])
    assert rig.store.asked == [[1]]


async def test_a_trial_is_of_few_calls_and_the_others_are_asked_once_it_worked() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.error = None
    takens = await rig.breaker.take([group(30), group(50), group(2)])
    assert rig.store.asked == [[30, TRIAL_CALLS - 30], [48, 2]]
    assert takens == [TakeResult(30, ()), TakeResult(50, ()), TakeResult(2, ())]


async def test_the_calls_of_a_trial_wait_a_little_and_the_breaker_waits_on() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.error, rig.store.held = None, asyncio.get_running_loop().create_future()
    assert await asyncio.wait_for(rig.breaker.take([group(30), group(50)]), 100 * TRIAL_WAIT_S) == [SENT, SENT]
    assert await rig.breaker.take([group()]) == [UNSENT], "one trial at a time"
    assert rig.store.asked == [[30, 2]]
    rig.store.held.set_result(None)
    async with asyncio.timeout(10):
        while rig.breaker.state is not BreakerState.CLOSED:
            await asyncio.sleep(0)


async def test_calls_of_a_group_that_a_trial_counted_in_part_may_have_been_counted() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.error = None
    rig.store.errors_after = {1: StoreError("connection", "gone", sent=False)}
    assert await rig.breaker.take([group(30), group(50), group(2)]) == [TakeResult(30, ()), SENT, UNSENT]
    assert rig.store.asked == [[30, TRIAL_CALLS - 30], [48, 2]]


async def test_a_trial_is_sent_only_over_a_connection_on_which_the_store_has_answered() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.error, rig.store.connecting = None, asyncio.get_running_loop().create_future()
    assert await rig.breaker.take([group(30), group(50)]) == [UNSENT, UNSENT]
    rig.store.connecting.set_result(None)
    await until_async(lambda: rig.states[-1] is BreakerState.OPEN)
    assert rig.store.asked == [], "the calls have had their answers"
    assert await rig.breaker.take([group(2)]) == [TakeResult(2, ())], "the next ones need not wait for a pause"
    half_open_twice = [BreakerState.HALF_OPEN, BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
    assert rig.states == [BreakerState.OPEN, *half_open_twice]


async def test_a_trial_without_a_connection_was_not_sent() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.connecting = asyncio.get_running_loop().create_future()
    rig.store.connecting.set_exception(StoreError("connection", "refused", sent=False))
    assert await rig.breaker.take([group(30), group(50)]) == [UNSENT, UNSENT]
    assert (rig.breaker.state, rig.store.asked) == (BreakerState.OPEN, [])
    assert str(rig.breaker.cause) == "refused"


@pytest.mark.parametrize(("sent", "how"), [(True, SENT), (False, UNSENT)])
async def test_the_calls_of_a_trial_that_fails_know_whether_the_store_was_asked(sent: bool, how: Uncounted) -> None:
    rig = Rig()
    await rig.open(sent=sent)
    rig.now += FIRST_PAUSE_S
    assert await rig.breaker.take([group(32), group()]) == [how, UNSENT]


async def test_without_calls_a_probe_closes_it() -> None:
    rig = Rig()
    await rig.open()
    await rig.breaker.look()
    rig.store.error = None
    await rig.breaker.look()
    assert rig.states[-2:] == [BreakerState.HALF_OPEN, BreakerState.CLOSED]


async def test_with_calls_only_these_close_it() -> None:
    """A probe of two keys works where a batch times out."""
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    await rig.breaker.take([group()])
    probes = rig.store.probes
    rig.store.error = None
    await rig.breaker.look()
    assert (rig.breaker.state, rig.store.probes) == (BreakerState.OPEN, probes)


async def test_a_probe_that_fails_opens_it_before_a_call_must_find_out() -> None:
    rig = Rig()
    rig.store.error = KeyError("k")
    await rig.breaker.look()
    assert await rig.breaker.take([group()]) == [UNSENT]
    assert str(rig.breaker.cause).startswith("asking the store failed: KeyError: 'k' in ")


async def test_closing_ends_a_trial() -> None:
    rig = Rig()
    await rig.open()
    rig.now += FIRST_PAUSE_S
    rig.store.error, rig.store.held = None, asyncio.get_running_loop().create_future()
    await rig.breaker.take([group()])
    await rig.breaker.aclose()
    assert rig.store.held.cancelled()
