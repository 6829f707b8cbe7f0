"""Simulated time."""

import asyncio
from typing import cast

import pytest

from simulation.loop import VirtualLoop, run_virtually


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
        loop.arrive_at(loop.time() + 1, lambda: None)
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
