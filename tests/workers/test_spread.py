"""Connections spread over workers."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from extauth.transport.handover import HandedConnections, hand_over
from extauth.workers.spread import Spread
from tests.support.wait import until_async


class Worker:
    """Takes connections as a worker does, over a pair of sockets, until it is told not to."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self.channel = ours
        ours.setblocking(False)
        self.open: list[socket.socket] = []
        self.handed = HandedConnections(self._theirs)
        self.calls_a_second = 0
        self.full = False
        self.sent = 0
        self.handed.start(self.open.append)

    @property
    def load(self) -> tuple[int, int, int]:
        return self.sent - self.handed.received + len(self.open), self.calls_a_second, self.sent

    def take(self, connection: socket.socket) -> bool:
        if self.full:
            return False
        self.sent += (taken := hand_over(self.channel, connection))
        return taken

    def stop(self) -> None:
        self.handed.stop()
        self.channel.close()
        for sock in self.open:
            sock.close()


class Rig:
    """Workers behind one port, and clients of it."""

    def __init__(self, workers: int) -> None:
        self.workers = [Worker() for _ in range(workers)]
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.spread = Spread(lambda: self.workers)
        self.spread.start([listener])
        self.clients: list[socket.socket] = []

    def connect(self, clients: int) -> None:
        for _ in range(clients):
            self.clients.append(socket.create_connection(("127.0.0.1", self.port), timeout=5))

    async def until(self, *connections: int) -> None:
        await until_async(lambda: tuple(len(worker.open) for worker in self.workers) == connections, self.spreads)

    def spreads(self) -> list[int]:
        return [len(worker.open) for worker in self.workers]

    def stop(self) -> None:
        self.spread.stop()
        for worker in self.workers:
            worker.stop()
        for client in self.clients:
            client.close()


@pytest.fixture
async def two() -> AsyncIterator[Rig]:
    rig = Rig(2)
    yield rig
    rig.stop()


@pytest.mark.parametrize(
    ("workers", "clients", "spread"),
    [
        (2, 2, (1, 1)),
        (2, 4, (2, 2)),
        (2, 8, (4, 4)),
        (4, 2, (1, 1, 0, 0)),
        (4, 4, (1, 1, 1, 1)),
        (4, 8, (2, 2, 2, 2)),
        (3, 8, (3, 3, 2)),
    ],
)
async def test_they_are_spread_evenly(workers: int, clients: int, spread: tuple[int, ...]) -> None:
    rig = Rig(workers)
    try:
        rig.connect(clients)
        await rig.until(*spread)
    finally:
        rig.stop()


async def test_a_connection_that_closed_makes_room(two: Rig) -> None:
    two.connect(4)
    await two.until(2, 2)
    for sock in two.workers[1].open:
        sock.close()
    two.workers[1].open.clear()
    two.connect(1)
    await two.until(2, 1)
    two.connect(2)
    await two.until(3, 2)


async def test_of_equally_many_the_one_with_fewer_calls_gets_the_next(two: Rig) -> None:
    two.connect(2)
    await two.until(1, 1)
    two.workers[0].calls_a_second = 1000
    two.connect(1)
    await two.until(1, 2)


async def test_who_has_no_room_is_passed_over_and_where_nobody_has_they_wait(two: Rig) -> None:
    two.workers[0].full = True
    two.connect(2)
    await two.until(0, 2)
    two.workers[1].full = True
    two.connect(4)  # the kernel accepts meanwhile
    await until_async(lambda: two.spread.waiting == 1)
    assert two.spreads() == [0, 2]
    two.workers[0].full = False
    await until_async(lambda: sum(two.spreads()) == 6)
    assert two.spreads()[1] == 2


async def test_who_is_gone_is_passed_over(two: Rig) -> None:
    two.workers[0].stop()
    two.connect(2)
    await until_async(lambda: len(two.workers[1].open) == 2)


async def test_what_is_handed_over_is_the_clients_own_connection(two: Rig) -> None:
    two.connect(1)
    await two.until(1, 0)
    (sock,) = two.workers[0].open
    await asyncio.get_running_loop().sock_sendall(sock, b"hello")
    assert await asyncio.to_thread(two.clients[0].recv, 5) == b"hello"
    sock.close()
    assert await asyncio.to_thread(two.clients[0].recv, 5) == b"", "nobody else holds it open"
