"""Accepts connections while there is room, and makes room by ending unused ones.

A connection counts from the moment in which it is accepted. Its TLS handshake begins only when the client has sent
something: until then it costs a socket and hardly any memory.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable
from functools import partial
from heapq import nsmallest
from itertools import islice
from operator import itemgetter
from typing import Any, cast

from extauth.transport.h2.closing import CLOSE_DELAY_S, CloseReason, Unused
from extauth.transport.h2.connection import START_S
from extauth.transport.h2.protocol import H2Protocol
from extauth.transport.h2.server_state import ServerState

LOOK_EVERY_S = 0.05  # the shortest time between two searches for unused connections
RETRY_S = 0.1  # the time until the next attempt, after accepting has failed
# Errors of one connection attempt, not of the listener: see accept(2).
_CLIENT_ERRORS = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH))


class OpenConnections(set[H2Protocol]):
    """All that are open; `fresh`, the oldest first, are those on which nothing had been asked when last looked at.

    `closed` is called after each that is closed.
    """

    def __init__(self, closed: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._closed = closed
        self.fresh: dict[H2Protocol, None] = {}

    def add(self, connection: H2Protocol) -> None:
        """A connection is made."""
        super().add(connection)
        self.fresh[connection] = None

    def discard(self, connection: object) -> None:
        """It is closed, or is being closed to free its place."""
        super().discard(connection)
        self.fresh.pop(cast(H2Protocol, connection), None)
        self._closed()


class Acceptor:
    """Accepts on `listeners`, and makes a protocol for each connection; `connections` are those that are open.

    From 7/8 of `max_connections` on, each new connection ends an unused one, if there is any: the oldest of those
    without an answer yet, which frees its place at once, else the one whose last answer is the oldest. Once
    `max_connections` are open, those without an answer go however young they are, so that clients that only connect
    keep nobody out who calls; where there are none, new connections are turned away.
    """

    def __init__(self, state: ServerState, connections: OpenConnections) -> None:
        context = state.context
        self._state = state
        self._connections = connections
        self._limits = context.limits
        self._on_guard = context.on_guard
        self._tls = context.tls
        self._clock = context.clock
        self._silent: dict[socket.socket, float] = {}  # TLS clients that have sent nothing, since when
        self._starting: dict[asyncio.Task[None], float] = {}  # TLS handshakes, since when; inf: not begun
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._looked = 0.0

    def __len__(self) -> int:
        """The number of connections, handshakes included."""
        return len(self._connections) + len(self._silent) + len(self._starting)

    def start(self, listeners: list[socket.socket]) -> None:
        """Accept from now on; the listeners are closed by `close`."""
        self._listeners = listeners
        self._accepting = [asyncio.create_task(self._accept_on(listener)) for listener in listeners]

    async def close(self) -> None:
        """Accept nothing more, and end the clients and handshakes that have not become a connection yet."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        for sock in list(self._silent):
            self._end_silent(sock, CloseReason.SHUTDOWN)
        if self._tls is not None:
            await asyncio.sleep(0)  # a task that is cancelled before it began would not close its socket
            for task in self._starting:
                task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)

    def check(self, now: float) -> None:
        """End TLS clients that have been silent for too long; called every second or so."""
        for sock, since in list(self._silent.items()):
            if now - since < self._limits.stall_timeout_s:
                break  # the others came later
            self._end_silent(sock, CloseReason.TLS_SILENT)

    async def _accept_on(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in _CLIENT_ERRORS:  # no descriptor or memory is left
                    self._make_room(self._clock(), 1)
                    self._make_place()
                    await asyncio.sleep(RETRY_S)
                continue
            self.accepted(sock)

    def accepted(self, sock: socket.socket) -> None:
        """Serve a connection that was accepted, here or by another process."""
        now = self._clock()
        most = self._limits.max_connections
        if (excess := len(self) + 1 - (most - most // 8)) > 0:
            self._make_room(now, excess)
        if len(self) >= most:
            self._make_place()
        if self._tls is None:
            self._begin(sock)  # if there is no room, its H2Protocol turns it away
        elif len(self) >= most:
            CloseReason.TLS_TOO_MANY.count(self._on_guard)
            sock.close()
        else:
            self._silent[sock] = now
            asyncio.get_running_loop().add_reader(sock.fileno(), self._heard, sock)

    def _heard(self, sock: socket.socket) -> None:
        self._forget_silent(sock)
        self._begin(sock)

    def _forget_silent(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock.fileno())
        del self._silent[sock]

    def _begin(self, sock: socket.socket) -> None:
        task = asyncio.create_task(self._open(sock))
        self._starting[task] = float("inf")
        task.add_done_callback(lambda done: self._starting.pop(done, None))

    async def _open(self, sock: socket.socket) -> None:
        options: dict[str, Any] = {}
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type
        self._starting[task] = self._clock()
        if self._tls is not None:
            options = {
                "ssl": self._tls.context,
                "ssl_handshake_timeout": self._limits.stall_timeout_s,
                "ssl_shutdown_timeout": CLOSE_DELAY_S,
            }
        made: list[H2Protocol] = []

        def connect() -> H2Protocol:
            made.append(H2Protocol(self._state, self._connections, lambda: self._starting.pop(task, None)))
            return made[-1]

        try:
            await asyncio.get_running_loop().connect_accepted_socket(connect, sock, **options)
        except BaseException as error:
            # After a failed handshake, nothing else breaks these reference cycles.
            error.with_traceback(None)
            for connection in made:
                connection.connection_lost(None)
            if not isinstance(error, OSError | EOFError):  # CloseReason.TLS_FAILED, among others
                raise
            sock.close()

    def _end_silent(self, sock: socket.socket, reason: CloseReason) -> None:
        reason.count(self._on_guard)
        self._forget_silent(sock)
        sock.close()

    def _make_room(self, now: float, excess: int) -> None:
        """End up to `excess` unused connections, in the order of Unused."""
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        excess -= sum(connection.leaving for connection in self._connections)
        unused: list[tuple[Unused, Callable[[], object]]] = []
        for sock, since in self._silent.items():
            unused.append((Unused(False, since), partial(self._end_silent, sock, CloseReason.IDLE)))
        for task, since in self._handshakes():
            unused.append((Unused(False, since), partial(self._end_handshake, task)))
        unused = [each for each in unused if now - each[0].since >= START_S]
        for connection in self._connections:
            if (since_when := connection.unused(now)) is not None:
                unused.append((since_when, connection.end_unused))
        for _, end in nsmallest(max(excess, 0), unused, key=itemgetter(0)):
            end()

    def _make_place(self) -> None:
        """End the client that has asked for nothing for longest since it came, if there is one, however young it is."""
        fresh = self._connections.fresh
        while fresh and not next(iter(fresh)).is_fresh():
            del fresh[next(iter(fresh))]
        oldest: list[tuple[float, Callable[[], object]]] = [
            *((each.opened_at, each.end_unused) for each in islice(fresh, 1)),
            *(
                (since, partial(self._end_silent, sock, CloseReason.IDLE))
                for sock, since in islice(self._silent.items(), 1)
            ),
            *((since, partial(self._end_handshake, task)) for task, since in islice(self._handshakes(), 1)),
        ]
        if oldest:
            min(oldest, key=itemgetter(0))[1]()

    def _handshakes(self) -> Iterable[tuple["asyncio.Task[None]", float]]:
        """The TLS handshakes that have begun: a task that is cancelled before would not close its socket."""
        if self._tls is None:
            return ()
        return ((task, since) for task, since in self._starting.items() if since < float("inf"))

    def _end_handshake(self, task: "asyncio.Task[None]") -> None:
        CloseReason.IDLE.count(self._on_guard)
        del self._starting[task]
        task.cancel()
