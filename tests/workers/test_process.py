"""What a worker is sent, as its end of the channel has it."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from extauth.workers.channel import Channel, Message
from extauth.workers.process import WorkerProcess

BOTH = [[b"a" * 65_536]] * 64
"""More than the sockets and the channel's buffer hold."""


@pytest.fixture
async def ends() -> AsyncIterator[tuple[WorkerProcess, Channel]]:
    """A worker's process as its parent has it, and the worker's end of the channel."""
    ours, theirs = socket.socketpair()
    handed, handed_theirs = socket.socketpair()
    with handed, handed_theirs:
        channel, worker = await Channel.over(ours), await Channel.over(theirs)
        process = await asyncio.create_subprocess_exec("true")
        yield WorkerProcess(0, process, channel, handed), worker
        channel.close()
        worker.close()
        await process.wait()


async def received(worker: Channel, sets: int) -> list[list[list[bytes]]]:
    """So many sets of rules, as they were sent."""
    found: list[list[list[bytes]]] = [[]]
    while len(found) <= sets:
        message: Message = await asyncio.wait_for(worker.receive(), 10)
        if message == ("rules",):
            found.append([])
        else:
            found[-1].append(message[1])
    return found[:-1]


async def test_rules_that_are_sent_at_a_time_come_one_set_after_the_other(ends: tuple[WorkerProcess, Channel]) -> None:
    process, worker = ends

    async def old() -> list[list[bytes]]:
        return BOTH

    async def new() -> list[list[bytes]]:
        return [[b"b"]]

    sending = asyncio.gather(process.send_rules(old), process.send_rules(new))
    assert await received(worker, 2) == [BOTH, [[b"b"]]]
    await sending


async def test_rules_are_asked_for_once_it_is_their_turn(ends: tuple[WorkerProcess, Channel]) -> None:
    process, worker = ends
    newest, packing = [b"old"], asyncio.Event()

    async def packed() -> list[list[bytes]]:
        pieces = list(newest)
        await packing.wait()
        return [pieces]

    async def last() -> list[list[bytes]]:
        return [newest]

    sending = asyncio.gather(process.send_rules(packed), process.send_rules(last))
    await asyncio.sleep(0)
    newest[:] = [b"new"]
    packing.set()
    assert await received(worker, 2) == [[[b"old"]], [[b"new"]]]
    await sending


async def test_other_work_goes_on_between_the_parts_of_rules(ends: tuple[WorkerProcess, Channel]) -> None:
    process, worker = ends
    parts, turns = [[b"a"]] * 100, 0

    async def packed() -> list[list[bytes]]:
        return parts

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    await process.send_rules(packed)
    working.cancel()
    assert turns >= len(parts)
    assert await received(worker, 1) == [parts]


async def test_a_worker_that_answers_late_does_not_hang(ends: tuple[WorkerProcess, Channel]) -> None:
    process, worker = ends
    running = asyncio.create_task(process.run())
    answer = process.ask("changes")
    assert await worker.receive() == ("ask", 1, "changes")
    process.note(None)
    assert process.late_s > 0
    worker.send("done", 1, {"decided": 5})
    assert await asyncio.wait_for(answer, 10) == {"decided": 5}
    assert process.late_s == 0
    worker.close()
    assert await running == 0
