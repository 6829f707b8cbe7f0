"""When a replica takes itself for cut off from the store."""

import asyncio

import pytest

from extauth.counters.breaker import BreakerState
from extauth.counters.cut_off import ASK_AT_MOST, ASK_EVERY_S, REACHED_FOR_S, CutOff
from tests.support.clock import Seconds

CLOSED, OPEN, HALF_OPEN = BreakerState


class Rig:
    """A replica that knows some others: `reached` are those that the store answers, `silent` never answer."""

    def __init__(self, *known: str) -> None:
        self.known = list(known)
        self.reached: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.given_up: list[str] = []
        self.changes: list[bool] = []
        self.clock = Seconds()
        self.replica = CutOff(lambda: self.known, self.ask, self._changed, clock=self.clock)

    async def ask(self, address: str) -> bool:
        self.asked.append(address)
        if address in self.silent:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.given_up.append(address)
                raise
        return address in self.reached

    def _changed(self) -> None:
        self.changes.append(self.replica.cut_off)

    async def look_for(self, seconds: float) -> None:
        """Let the seconds pass, with a look at their beginning and at each ASK_EVERY_S."""
        for _ in range(round(seconds / ASK_EVERY_S)):
            await self.replica.look()
            self.clock.now += ASK_EVERY_S
        await self.replica.look()

    async def open_for(self, seconds: float) -> None:
        self.replica.breaker_changed(OPEN)
        await self.look_for(seconds)


async def test_it_is_once_another_one_is_reached_for_a_while() -> None:
    rig = Rig("a", "b")
    rig.reached = {"b"}
    await rig.open_for(REACHED_FOR_S - ASK_EVERY_S)
    assert not rig.replica.cut_off
    await rig.look_for(ASK_EVERY_S)
    assert (rig.replica.cut_off, rig.changes) == (True, [True])


async def test_each_look_may_find_another_one_that_is_reached() -> None:
    rig = Rig("a", "b")
    rig.replica.breaker_changed(OPEN)
    for i in range(round(REACHED_FOR_S / ASK_EVERY_S) + 1):
        rig.reached = {"ab"[i % 2]}
        await rig.replica.look()
        rig.clock.now += ASK_EVERY_S
    assert rig.changes == [True]


async def test_it_is_not_where_another_one_notices_later_that_the_store_is_away() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    await rig.open_for(REACHED_FOR_S - ASK_EVERY_S)
    rig.reached = set()
    await rig.look_for(60)
    assert (rig.replica.cut_off, rig.changes) == (False, [])


@pytest.mark.parametrize("later_s", [0.5, 1.0, REACHED_FOR_S - ASK_EVERY_S])
async def test_it_is_not_where_another_one_notices_earlier_that_the_store_is_back(later_s: float) -> None:
    rig = Rig("a")
    await rig.open_for(60)
    rig.reached = {"a"}
    await rig.look_for(later_s)
    rig.replica.breaker_changed(CLOSED)
    await rig.look_for(60)
    assert (rig.replica.cut_off, rig.changes) == (False, [])


async def test_it_is_where_the_store_is_back_for_another_one_only() -> None:
    rig = Rig("a")
    await rig.open_for(60)
    rig.reached = {"a"}
    await rig.look_for(REACHED_FOR_S)
    assert rig.changes == [True]


@pytest.mark.parametrize("known", [(), ("a",), ("a", "b")])
async def test_it_is_not_where_no_other_is_reached(known: tuple[str, ...]) -> None:
    rig = Rig(*known)
    await rig.open_for(60)
    assert (rig.replica.cut_off, rig.changes, sorted(set(rig.asked))) == (False, [], [*known])


async def test_it_is_not_any_more_once_no_other_is_reached() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    await rig.open_for(REACHED_FOR_S)
    rig.reached.clear()
    await rig.replica.look()
    assert rig.changes == [True, False]


async def test_it_is_not_any_more_at_once_when_the_breaker_closes_and_asks_nobody_then() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    await rig.open_for(REACHED_FOR_S)
    rig.replica.breaker_changed(HALF_OPEN)
    assert rig.replica.cut_off
    rig.replica.breaker_changed(CLOSED)
    assert rig.changes == [True, False]
    rig.asked.clear()
    await rig.replica.look()
    assert rig.asked == []


async def test_the_while_begins_anew_with_each_time_that_the_breaker_opens_and_not_with_each_trial() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    for state in (OPEN, HALF_OPEN, OPEN):
        rig.replica.breaker_changed(state)
        await rig.look_for(REACHED_FOR_S / 2)
    assert rig.replica.cut_off
    rig.replica.breaker_changed(CLOSED)
    await rig.open_for(REACHED_FOR_S - ASK_EVERY_S)
    assert not rig.replica.cut_off


async def test_an_answer_that_comes_after_the_breaker_closed_counts_for_nothing() -> None:
    clock, changes = Seconds(), list[str]()

    async def ask(address: str) -> bool:
        for state in (CLOSED, OPEN):
            replica.breaker_changed(state)
        return address == "a"

    replica = CutOff(lambda: ["a"], ask, lambda: changes.append("changed"), clock=clock)
    replica.breaker_changed(OPEN)
    for _ in range(10):
        await replica.look()
        clock.now += REACHED_FOR_S
    assert (replica.cut_off, changes) == (False, [])


async def test_at_most_some_are_asked_and_each_address_once() -> None:
    known = [f"10.0.0.{i}:8081" for i in range(40)]
    rig = Rig(*known, *known)
    await rig.open_for(REACHED_FOR_S)
    rig.asked.clear()
    await rig.replica.look()
    assert len(rig.asked) == len(set(rig.asked)) == ASK_AT_MOST == 16
    for _ in range(200):
        await rig.replica.look()
    assert set(rig.asked) == set(known), "chance reaches all of them in the end"


async def test_the_first_that_is_reached_is_enough() -> None:
    rig = Rig("a", "b", "c")
    rig.silent, rig.reached = {"a", "c"}, {"b"}
    await asyncio.wait_for(rig.open_for(REACHED_FOR_S), 10)
    assert rig.replica.cut_off
    assert sorted(set(rig.given_up)) == ["a", "c"]


async def test_it_looks_by_itself_while_the_breaker_is_open() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    told = asyncio.Event()
    replica = CutOff(lambda: rig.known, rig.ask, told.set, clock=iter((0.0, *[REACHED_FOR_S] * 9)).__next__)
    looking = asyncio.create_task(replica.keep_looking())
    replica.breaker_changed(OPEN)
    await asyncio.wait_for(told.wait(), 10)
    assert replica.cut_off
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
