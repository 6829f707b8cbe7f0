"""A small HTTP/1.1 server for probes, scrapes and a few people."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from typing import Final

from extauth.address import listen_on, split_address
from extauth.admin.connection import PLACES, Connection, Context, State
from extauth.admin.hosts import AllowedHosts
from extauth.admin.lane import Lane
from extauth.admin.routes import Route
from extauth.errors import SettingsError

BACKLOG: Final = 4096  # clients that wait to be accepted; the kernel may have a lower bound
ACCEPTED_A_TURN: Final = 8
GRACE_S: Final = 0.005
CHECK_S: Final = 1.0
STOP_GRACE_S: Final = 1.0
SEND_BUFFER_BYTES: Final = 65_536


class HttpServer:
    """Serves `routes`, by path, on `listen`, HOST:PORT, which `setting` named.

    Pages for people are served under IP addresses and `hosts` only.

    **Time.** A request must be complete 10 s after its connection was opened, or, on a connection that was kept alive,
    10 s after its first byte. A connection is kept alive for 75 s. A client must read each piece of an answer within
    10 s; the whole answer may take longer. `clock` gives seconds, and connections are checked every `check_s`.

    **Places.** There are 64 connections. One more client replaces the connection that has been silent for longest. If
    none has been silent for 5 ms, the client replaces the page that has been in transfer for longest; without a page,
    the oldest lasting answer; without one, the oldest call; without one, the oldest connection, probes and scrapes
    last. While 48 answers are being sent, pages for people are refused (503). So neither a silent or slow client nor a
    page or a call is in the way of a probe or scrape.

    **Turns.** One turn of the event loop accepts up to 8 clients and spends 0.5 ms on each of four kinds of work:
    reading requests, making pages, reading calls, and making answers for probes and scrapes. The rest waits for the
    next turn.
    """

    def __init__(
        self,
        listen: str,
        routes: Mapping[str, Route],
        *,
        hosts: Iterable[str] = (),
        setting: str = "EXTAUTH_ADMIN_LISTEN",
        clock: Callable[[], float] = time.monotonic,
        check_s: float = CHECK_S,
    ) -> None:
        self._listen = listen
        self._setting = setting
        self._clock = clock
        self._check_s = check_s
        pages = Lane(clock)
        self._context = Context(
            routes=routes,
            hosts=AllowedHosts([split_address(listen)[0], *hosts]),
            clock=clock,
            lanes={
                State.WAITING: Lane(clock),
                State.PAGE: pages,
                State.STREAM: pages,
                State.CALL: Lane(clock),
                State.PROBE: Lane(clock),
            },
        )
        self._listeners: list[socket.socket] = []
        self._connections = self._context.open
        self._checks: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; raises SettingsError if that is not possible."""
        try:
            self._listeners = listen_on(self._listen, BACKLOG)
        except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
            reason = getattr(error, "strerror", None) or error
            message = f"{self._setting}={self._listen}: cannot listen there: {reason}"
            raise SettingsError(message) from error
        for listener in self._listeners:
            # Bytes that the kernel buffers count as read, so it may buffer few: a client that reads none shows soon.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._accept_from(listener)
        self._checks = asyncio.create_task(self._check())

    async def stop(self) -> None:
        """Accept no more requests, wait at most one second for answers in progress, and close."""
        loop = asyncio.get_running_loop()
        self._context.stopping = True
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.gather(self._checks, return_exceptions=True)
        for connection in self._connections:
            if connection.state in {State.WAITING, State.CLOSING}:
                connection.end()
        tasks = {connection.task for connection in self._connections}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _accept_from(self, listener: socket.socket) -> None:
        if not self._context.stopping:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Accept a few clients at a time, so that each is read before it can be closed to make room."""
        for _ in range(ACCEPTED_A_TURN):
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # there is no client, or it is gone already
                return
            except OSError:  # no file descriptor is left: free one, and try again
                self._make_place(0)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(self._check_s, self._accept_from, listener)
                return
            sock.setblocking(False)
            with suppress(OSError):  # the client is gone, which reading will report
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._make_place(PLACES - 1)
            self._connections.add(Connection(sock, self._context))

    def _make_place(self, most: int) -> None:
        """Close one connection if more than `most` are open."""
        connections = [connection for connection in self._connections if not connection.ended]
        if len(connections) > most:
            connections.sort(key=attrgetter("since"))
            first = next((connection for connection in connections if connection.is_silent()), None)
            if first is None or self._clock() - first.since < GRACE_S:
                streams = (connection for connection in connections if connection.state is State.STREAM)
                pages = (connection for connection in connections if connection.state is State.PAGE)
                calls = (connection for connection in connections if connection.state is State.CALL)
                first = next(chain(pages, streams, calls), first or min(connections, key=attrgetter("state")))
            first.end()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            self._end_late()

    def _end_late(self) -> None:
        now = self._clock()
        for connection in self._connections:
            if connection.deadline <= now:
                connection.end()
