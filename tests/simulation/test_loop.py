"""Simulated time."""

import asyncio
from contextvars import Context
from typing import cast

import pytest

from simulation.loop import VirtualLoop, process, run_virtually


def test_waiting_takes_as_long_as_it_says() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(asyncio.sleep(hours * 3600) for hours in (2, 1)))
        return loop.time() - began

    assert run_virtually(wait()) == pytest.approx(7200, abs=0.001)


def test_timers_of_tasks_are_counted_and_what_the_network_brings_is_not() -> None:
    async def count() -> list[int]:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        numbers = [loop.timers()]
        loop.arrive_at(loop.time() + 1, lambda: None, to=Context())
        numbers.append(loop.timers())
        loop.call_later(1, lambda: None)
        numbers.append(loop.timers())
        return numbers

    assert run_virtually(count()) == [0, 0, 1]


def test_tasks_that_wait_for_nothing_that_can_come_are_an_error() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="every task waits, and no timer is set"):
        run_virtually(wait())


@pytest.mark.parametrize("timers_first", [True, False])
def test_what_belongs_to_a_process_waits_while_that_is_stopped(timers_first: bool) -> None:
    async def stop() -> list[tuple[str, float]]:
        loop = cast(VirtualLoop, asyncio.get_running_loop())
        began, ran = loop.time(), list[tuple[str, float]]()

        def run(name: str) -> None:
            ran.append((name, round(loop.time() - began)))

        own = Context()
        own.run(process.set, "own")
        for when in (1, 9):
            loop.call_at(began + when, run, "timer", context=own)
            loop.call_at(began + when, run, "other")
        for when in (2, 3):
            loop.arrive_at(began + when, run, f"arrival {when}", to=own)
        loop.stop_process("own")
        await asyncio.sleep(5)
        loop.resume_process("own", timers_first=timers_first)
        await asyncio.sleep(5)
        return ran

    arrivals = [("arrival 2", 5), ("arrival 3", 5)]
    late = [("timer", 5), *arrivals] if timers_first else [*arrivals, ("timer", 5)]
    ran = run_virtually(stop())
    assert [each for each in ran if each[0] != "other"] == [*late, ("timer", 9)]
    assert [each for each in ran if each[0] == "other"] == [("other", 1), ("other", 9)]
