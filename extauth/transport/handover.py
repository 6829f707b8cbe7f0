"""Hands accepted connections from one process to another, over a Unix socket that both have an end of."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

TAKEN_A_TURN: Final = 64

_BYTE: Final = b"\0"  # a descriptor travels with at least one byte
_FULL: Final = frozenset((errno.ENOBUFS, errno.ETOOMANYREFS))


def hand_over(channel: socket.socket, connection: socket.socket) -> bool:
    """Hand a connection over, which then belongs to the other process as well; False if that has no room for it now.

    Raises OSError where the other process is gone.
    """
    try:
        socket.send_fds(channel, [_BYTE], [connection.fileno()])
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:
        if error.errno in _FULL:
            return False
        raise
    return True


class HandedConnections:
    """The connections that another process hands over; `received` is how many have come.

    `when_closed` is called each time that one of them has been closed, or may have been.
    """

    def __init__(self, channel: socket.socket, when_closed: Callable[[], None] = lambda: None) -> None:
        channel.setblocking(False)
        self._channel = channel
        self.when_closed = when_closed
        self.received = 0

    def start(self, accepted: Callable[[socket.socket], None]) -> None:
        """Give `accepted` each connection from now on."""
        asyncio.get_running_loop().add_reader(self._channel, self._take, accepted)

    def stop(self) -> None:
        """Take no more; those that are under way are closed."""
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()

    def _take(self, accepted: Callable[[socket.socket], None]) -> None:
        for _ in range(TAKEN_A_TURN):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # the other process is gone
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            self.received += 1
            if not descriptors:  # this process had no descriptor left for it, so it was closed
                self.when_closed()
                continue
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            accepted(connection)
