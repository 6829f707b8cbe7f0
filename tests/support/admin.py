"""An HTTP server of extauth's in a thread of its own, and clients that block: each turn of its loop is its own."""

import asyncio
import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import uvloop

from extauth.admin.http import HttpServer
from extauth.admin.routes import Answer, Audience, Route
from extauth.admin.server import AdminServer, Readiness
from tests.support.ports import free_port
from tests.support.wait import PATIENCE_S, until

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
HEALTHZ = Route(lambda _: Answer(b"ok\n"), Audience.MACHINES)
METRICS_TYPE = "text/plain; version=1.0.0"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"  # the beginning of a request


class Seconds:
    """Time under the test's control, of which each look takes 10 µs, as work does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += 0.000_01
        return self.now


class Reply(NamedTuple):
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServedAdmin:
    """A running server; `errors` are what its loop was told went wrong."""

    def __init__(self, port: int, clock: Seconds, stop: Callable[[], None]) -> None:
        self.port = port
        self.clock = clock
        self.stop = stop
        self.errors: list[dict[str, Any]] = []
        self._clients = ExitStack()

    def connect(self, data: bytes = b"", *, read_buffer: int | None = None) -> socket.socket:
        """A client that has sent `data`."""
        client = self._clients.enter_context(socket.socket())
        client.settimeout(PATIENCE_S)
        if read_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        client.connect(("127.0.0.1", self.port))
        client.sendall(data)
        return client

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            return reply(connection.getresponse())
        finally:
            connection.close()

    def settle(self) -> None:
        """Return once what clients sent before is read: it takes several turns of the loop to be answered."""
        assert self.get("/healthz").status == 200

    def after(self, seconds: float) -> None:
        """Let time pass, and return once an idle server has looked at all of its connections."""
        self.clock.now += seconds
        seen = self.clock.looks
        until(lambda: self.clock.looks > seen + 5)

    def hang_up(self) -> None:
        """Close all clients."""
        self._clients.close()


def reply(response: http.client.HTTPResponse) -> Reply:
    """All of a response; header names in lower case."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, response.read())


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while data := client.recv(65_536):
        received += data
    return received


def statuses(received: bytes) -> list[int]:
    """Of the answers in it."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed, and all that it sent is read."""
    client.settimeout(0)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        client.settimeout(PATIENCE_S)


@contextmanager
def serving(
    loop: str,
    routes: Mapping[str, Route] | None = None,
    *,
    listen: str = "127.0.0.1",
    before_stop: Callable[[], None] = lambda: None,
    **options: Any,  # noqa: ANN401
) -> Iterator[ServedAdmin]:
    """A server of these routes and `/healthz`, or of extauth's own pages, until the block ends.

    `before_stop` is called in its loop.
    """
    port, clock = free_port(), Seconds()
    stopping = threading.Event()
    served = ServedAdmin(port, clock, stop=stopping.set)
    options = {"clock": clock, "check_s": 0.002, **options}

    async def top() -> Iterator[str]:
        await asyncio.sleep(0)
        return iter(['{"replicas": 1, ', '"all": {}}'])

    pages: dict[str, Any] = {
        "metrics": lambda _accept: (METRICS_TYPE, iter([b"a 1\n", b"b 2\n"])),
        "readiness": lambda: Readiness(True, {"status": "ready"}),
        "rules": lambda: iter(['{"domains": ', "[]}"]),
        "top": top,
    }
    listening = threading.Event()

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: served.errors.append(context))
        address = f"{listen}:{port}"
        if routes is None:
            server: HttpServer = AdminServer(address, **pages | options)
        else:
            server = HttpServer(address, {"/healthz": HEALTHZ, **routes}, **options)
        await server.start()
        listening.set()
        await asyncio.to_thread(stopping.wait)
        before_stop()
        await server.stop()

    def thread() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(run())

    running = threading.Thread(target=thread)
    running.start()
    try:
        assert listening.wait(PATIENCE_S)
        yield served
    finally:
        served.hang_up()
        stopping.set()
        running.join()
