"""The h2 engine: listens, and checks its connections regularly."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from extauth.address import listen_on
from extauth.errors import SettingsError
from extauth.transport.deadlines import after_io
from extauth.transport.engine import EngineContext
from extauth.transport.h2.accepting import Acceptor, OpenConnections
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.protocol import H2Protocol
from extauth.transport.h2.server_state import ServerState

CHECK_S = 1.0
BACKLOG = 1024


class H2Server:
    """The `Engine` that speaks HTTP/2 itself, which serves on `listen`, HOST:PORT or unix:PATH."""

    def __init__(self, listen: str, context: EngineContext) -> None:
        self._listen = listen
        self._connections = OpenConnections()
        self._state = ServerState(context)
        self._clock = context.clock
        self._check_every_s = min(CHECK_S, context.limits.stall_timeout_s / 4)
        self._acceptor = Acceptor(self._connect, self._connections, context)
        self._checks: asyncio.Task[None] | None = None
        self._draining = False

    def count_connections(self) -> int:
        """The number of open connections, TLS handshakes included."""
        return len(self._acceptor)

    def _connect(self, made: Callable[[], object]) -> H2Protocol:
        return H2Protocol(self._state, self._connections, made)

    async def start(self) -> None:
        """Listen and report SERVING; raises SettingsError if the address is not available."""
        try:
            _clear_socket(self._listen)
            listeners = listen_on(self._listen, BACKLOG)
        except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
            reason = getattr(error, "strerror", None) or error
            message = f"EXTAUTH_GRPC_LISTEN={self._listen}: cannot listen there: {reason}"
            raise SettingsError(message) from error
        self._acceptor.start(listeners)
        self._checks = asyncio.create_task(self._check())
        self._state.health.report(serving=True, store=False)

    async def report(self, *, serving: bool, store: bool) -> None:
        """As Engine.report."""
        if not self._draining:
            self._report(serving=serving, store=store)

    async def drain(self) -> None:
        """Report NOT_SERVING to health checks; calls are still answered."""
        self._draining = True
        self._report(serving=False, store=False)

    def _report(self, *, serving: bool, store: bool) -> None:
        health = self._state.health
        health.report(serving=serving, store=store)
        if health.changed:
            for connection in list(self._connections):
                connection.health_changed()

    async def stop(self, grace_s: float) -> None:
        """Accept no new calls, and answer those in flight within `grace_s`."""
        if self._checks is None:
            return
        self._state.stopping = True
        await self._acceptor.close()
        _clear_socket(self._listen)
        connections = self._connections
        for connection in list(connections):
            connection.go_away(CloseReason.SHUTDOWN)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while connections:  # noqa: ASYNC110 - polling once, at the end, spares each connection an event
                    await asyncio.sleep(0.01)
        for connection in list(connections):
            connection.close_at_once(CloseReason.GRACE_OVER)
        self._checks.cancel()
        await asyncio.gather(self._checks, return_exceptions=True)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            after_io(self._check_all)

    def _check_all(self) -> None:
        now = self._clock()
        self._acceptor.check(now)
        for connection in list(self._connections):
            connection.check(now)


def _clear_socket(listen: str) -> None:
    """Remove a Unix socket on which no server listens any more; raises OSError if one does."""
    kind, _, path = listen.partition(":")
    if kind != "unix":
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError:
            return
        else:
            raise OSError(None, "another server listens there")
