"""The h2 engine: listens, and checks its connections regularly."""

import asyncio
from contextlib import suppress

from extauth.transport.deadlines import after_io
from extauth.transport.engine import EngineContext
from extauth.transport.h2.accepting import Acceptor, OpenConnections
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.server_state import ServerState
from extauth.transport.handover import HandedConnections
from extauth.transport.listening import clear_socket, open_port

CHECK_S = 1.0


class H2Server:
    """The `Engine` that speaks HTTP/2 itself, which serves on `listen`, HOST:PORT or unix:PATH.

    With `handed` it listens nowhere, and serves what another process has accepted there.
    """

    def __init__(self, listen: str, context: EngineContext, handed: HandedConnections | None = None) -> None:
        self._listen = listen
        self._handed = handed
        self._connections = OpenConnections(handed.when_closed if handed is not None else lambda: None)
        self._state = ServerState(context)
        self._clock = context.clock
        self._check_every_s = min(CHECK_S, context.limits.stall_timeout_s / 4)
        self._acceptor = Acceptor(self._state, self._connections)
        self._checks: asyncio.Task[None] | None = None
        self._draining = False

    def count_connections(self) -> int:
        """The number of open connections, TLS handshakes included."""
        return len(self._acceptor)

    async def start(self) -> None:
        """Listen and report SERVING; raises SettingsError if the address is not available."""
        if self._handed is None:
            self._acceptor.start(open_port(self._listen))
        else:
            self._handed.start(self._acceptor.accepted)
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
        if self._handed is not None:
            self._handed.stop()
        await self._acceptor.close()
        if self._handed is None:
            clear_socket(self._listen)
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
        if self._handed is not None:  # TLS handshakes that failed, too, are no connections any more
            self._handed.when_closed()
