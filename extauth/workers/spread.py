"""Accepts the connections of the gRPC port, and hands each to the worker that has the fewest.

Envoy opens one connection for each of its threads and keeps it. So what matters is that these few are spread evenly
from the beginning, which the kernel's own spreading among listeners (SO_REUSEPORT), by a hash, does not do.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

ACCEPTED_A_TURN: Final = 64
RETRY_S: Final = 0.02

# Errors of one connection attempt, not of the listener: see accept(2).
_CLIENT_ERRORS: Final = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH))


class Taker(Protocol):
    """Who takes connections."""

    @property
    def load(self) -> tuple[int, int, int]:
        """The connections that it has, the calls that it lately decided a second, the connections that it has had."""
        ...

    def take(self, connection: socket.socket) -> bool:
        """Take a connection, unless there is no room for it now."""
        ...


class Spread:
    """Spreads connections over `takers()`.

    While none of them takes a connection it waits, and those behind it are not accepted.
    """

    def __init__(self, takers: Callable[[], Iterable[Taker]]) -> None:
        self._takers = takers
        self._listeners: Sequence[socket.socket] = ()
        self._waiting: list[socket.socket] = []  # connections that nobody has taken yet
        self._retry: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The connections that were accepted, and that nobody has taken yet."""
        return len(self._waiting)

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Accept from now on; the listeners are closed by `stop`."""
        self._listeners = listeners
        self._listen()

    def stop(self) -> None:
        """Accept nothing more."""
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        for sock in (*self._listeners, *self._waiting):
            sock.close()
        self._listeners = ()

    def _listen(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _pause(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_A_TURN):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _CLIENT_ERRORS:
                    continue
                self._wait()  # no descriptor or memory is left
                return
            if not self._give(connection):
                self._waiting.append(connection)
                self._wait()
                return

    def _give(self, connection: socket.socket) -> bool:
        """Hand a connection to the taker with the least load that takes it."""
        for taker in sorted(self._takers(), key=lambda taker: taker.load):
            with suppress(OSError):  # it is gone, which its process will be found to be
                if taker.take(connection):
                    connection.close()
                    return True
        return False

    def _wait(self) -> None:
        self._pause()
        self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        while self._waiting:
            if not self._give(self._waiting[0]):
                self._wait()
                return
            self._waiting.pop(0)
        self._listen()
