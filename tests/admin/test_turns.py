"""What the admin server does in one turn of the loop, beside which calls are decided."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from extauth.admin.connection import PLACES
from extauth.admin.routes import Answer, Audience, Request, Route
from tests.support.admin import Seconds, everything, serving, statuses


class Turns:
    """Counts the turns of a loop, once asked from within it, and what happens in each."""

    def __init__(self) -> None:
        self.turn = 0
        self.events: Counter[int] = Counter()

    def event(self) -> None:
        if not self.turn:
            self._next()
        self.events[self.turn] += 1

    def _next(self) -> None:
        self.turn += 1
        asyncio.get_running_loop().call_soon(self._next)


@pytest.mark.parametrize("audience", Audience)
def test_a_turn_of_the_loop_makes_half_a_millisecond_of_pages_and_of_scrapes(loop: str, audience: Audience) -> None:
    turns = Turns()

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            turns.event()
            served.clock.now += 0.000_1
            yield b"x"

    with serving(loop, {"/": Route(lambda _: Answer(pieces()), audience)}) as served:
        clients = [served.connect(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n") for _ in range(20)]
        assert [statuses(everything(client)) for client in clients] == [[200]] * 20
    assert turns.events.total() == 2000
    assert max(turns.events.values()) <= 10, "of 0.1 ms each: one that is over at 0.49 ms may be followed by another"


def test_a_turn_of_the_loop_answers_half_a_millisecond_of_requests(loop: str) -> None:
    turns = Turns()

    def answer(_request: Request) -> Answer:
        turns.event()
        served.clock.now += 0.000_2
        return Answer(b"")

    with serving(loop, {"/": Route(answer, Audience.MACHINES)}) as served:
        clients = [served.connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50) for _ in range(30)]
        for client in clients:
            client.shutdown(socket.SHUT_WR)
        assert [len(statuses(everything(client))) for client in clients] == [50] * 30
    assert max(turns.events.values()) <= 3


def test_a_turn_of_the_loop_lets_few_clients_in(loop: str) -> None:
    turns, entered, free = Turns(), threading.Event(), threading.Event()

    class Watched(Seconds):
        """A clock that counts who looks at it: what lets a client in does, and what reads from it."""

        def __call__(self) -> float:
            if entered.is_set():
                turns.event()
            return super().__call__()

    def block(_request: Request) -> Answer:
        entered.set()
        free.wait(20)
        return Answer(b"")

    with serving(loop, {"/block": Route(block, Audience.MACHINES)}, clock=Watched()) as served:
        served.connect(b"GET /block HTTP/1.0\r\n\r\n")
        assert entered.wait(20)
        for _ in range(PLACES - 1):  # they wait for the loop together
            served.connect()
        free.set()
        served.settle()
        entered.clear()
    assert turns.events.total() > PLACES
    assert max(turns.events.values()) < PLACES / 2
