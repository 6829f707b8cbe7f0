"""Answers without end, and clients in the states that a server must bear."""

import socket
from collections.abc import Iterator

from extauth.admin.routes import Answer, Audience, Request, Route
from tests.support.admin import ServedAdmin, statuses

PAGE = b"GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SCRAPE = b"GET /scrape HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def endless(_request: Request) -> Answer:
    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    return Answer(pieces())


ENDLESS = {
    "/page": Route(endless, Audience.PEOPLE),
    "/scrape": Route(endless, Audience.MACHINES),
    "/readyz": Route(lambda _: Answer(b"{}"), Audience.MACHINES),
    "/metrics": Route(lambda _: Answer(iter([b"a 1\n"])), Audience.MACHINES),
}


def alive(client: socket.socket, size: int = 1_000_000) -> bool:
    """Whether the server sends more than what lies in buffers."""
    while size > 0:
        try:
            data = client.recv(65_536)
        except ConnectionResetError:
            return False
        if not data:
            return False
        size -= len(data)
    return True


def being_answered(served: ServedAdmin, request: bytes, number: int) -> list[socket.socket]:
    """Clients that read no more than the first byte of an answer without end."""
    clients = []
    for _ in range(number):
        clients.append(served.connect(request, read_buffer=4096))
        assert clients[-1].recv(1) == b"H"
    return clients


def kept_alive(served: ServedAdmin) -> socket.socket:
    """A client that has got an answer."""
    client = served.connect(PROBE)
    assert statuses(client.recv(1000)) == [200]
    served.settle()
    return client
