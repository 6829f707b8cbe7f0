"""When a replica takes itself for cut off from the store."""

import asyncio

import pytest

from extauth.counters.breaker import BreakerState
from extauth.counters.cut_off import ASK_AT_MOST, OPEN_FOR_S, CutOff
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

    async def open_for(self, seconds: float) -> None:
        self.replica.breaker_changed(OPEN)
        self.clock.now += seconds
        await self.replica.look()


async def test_it_is_once_the_breaker_was_open_for_a_while_and_another_one_is_reached() -> None:
    rig = Rig("a", "b")
    rig.reached = {"b"}
    await rig.open_for(OPEN_FOR_S - 0.1)
    assert (rig.replica.cut_off, rig.asked) == (False, [])
    rig.clock.now += 0.1
    await rig.replica.look()
    assert (rig.replica.cut_off, rig.changes) == (True, [True])


@pytest.mark.parametrize("known", [(), ("a",), ("a", "b")])
async def test_it_is_not_where_no_other_is_reached(known: tuple[str, ...]) -> None:
    rig = Rig(*known)
    await rig.open_for(60)
    assert (rig.replica.cut_off, rig.changes, sorted(rig.asked)) == (False, [], [*known])


async def test_it_is_not_any_more_once_no_other_is_reached() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    await rig.open_for(OPEN_FOR_S)
    rig.reached.clear()
    await rig.replica.look()
    assert rig.changes == [True, False]


async def test_it_is_not_any_more_at_once_when_the_breaker_closes_and_asks_nobody_then() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    await rig.open_for(OPEN_FOR_S)
    rig.replica.breaker_changed(HALF_OPEN)
    assert rig.replica.cut_off
    rig.replica.breaker_changed(CLOSED)
    assert rig.changes == [True, False]
    await rig.replica.look()
    assert rig.asked == ["a"]


async def test_the_while_begins_anew_with_each_time_that_the_breaker_opens_and_not_with_each_trial() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    for state in (OPEN, HALF_OPEN, OPEN):
        rig.replica.breaker_changed(state)
        rig.clock.now += OPEN_FOR_S / 3 + 0.01
    await rig.replica.look()
    assert rig.replica.cut_off
    rig.replica.breaker_changed(CLOSED)
    await rig.open_for(OPEN_FOR_S - 0.1)
    assert not rig.replica.cut_off


async def test_an_answer_that_comes_after_the_breaker_closed_counts_for_nothing() -> None:
    clock, changes = Seconds(), list[str]()

    async def ask(address: str) -> bool:
        for state in (CLOSED, OPEN):
            replica.breaker_changed(state)
        return address == "a"

    replica = CutOff(lambda: ["a"], ask, lambda: changes.append("changed"), clock=clock)
    replica.breaker_changed(OPEN)
    clock.now += OPEN_FOR_S
    await replica.look()
    assert (replica.cut_off, changes) == (False, [])


async def test_at_most_some_are_asked_and_each_address_once() -> None:
    known = [f"10.0.0.{i}:8081" for i in range(40)]
    rig = Rig(*known, *known)
    await rig.open_for(OPEN_FOR_S)
    assert len(rig.asked) == len(set(rig.asked)) == ASK_AT_MOST == 16
    for _ in range(200):
        await rig.replica.look()
    assert set(rig.asked) == set(known), "chance reaches all of them in the end"


async def test_the_first_that_is_reached_is_enough() -> None:
    rig = Rig("a", "b", "c")
    rig.silent, rig.reached = {"a", "c"}, {"b"}
    await asyncio.wait_for(rig.open_for(OPEN_FOR_S), 10)
    assert rig.replica.cut_off
    assert sorted(rig.given_up) == ["a", "c"]


async def test_it_looks_by_itself_while_the_breaker_is_open() -> None:
    rig = Rig("a")
    rig.reached = {"a"}
    rig.clock.now = OPEN_FOR_S
    told = asyncio.Event()
    replica = CutOff(lambda: rig.known, rig.ask, told.set, clock=iter((0.0, *[OPEN_FOR_S] * 9)).__next__)
    looking = asyncio.create_task(replica.keep_looking())
    replica.breaker_changed(OPEN)
    await asyncio.wait_for(told.wait(), 10)
    assert replica.cut_off
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
