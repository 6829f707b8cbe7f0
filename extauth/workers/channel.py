"""Messages between the parent and a worker, over a pair of sockets: whole tuples of what `marshal` can write.

Both ends are the same program, started from the same files by the same user: what comes is believed.
"""

import asyncio
import marshal
import socket
import struct
from typing import Any, Final

PART_ITEMS: Final = 500
"""Items of a list in one message, which takes well below a millisecond to read and to write."""

_LENGTH: Final = struct.Struct("!I")

Message = tuple[Any, ...]


class Channel:
    """One end. `close` is heard by the other end as the end of the messages."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Channel":
        """The end that is `sock`, which belongs to the channel from now on."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    def send(self, *message: Any) -> None:  # noqa: ANN401
        """Send a message, which is lost if the other end is gone."""
        if self._writer.is_closing():
            return
        packed = marshal.dumps(message)
        self._writer.write(_LENGTH.pack(len(packed)) + packed)

    async def drain(self) -> None:
        """Wait until the other end has read most of what was sent; raises OSError if it is gone."""
        await self._writer.drain()

    async def receive(self) -> Message:
        """The next message; raises EOFError if the other end is gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: Message = marshal.loads(await self._reader.readexactly(length))  # noqa: S302 - our own process's
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error
        return message

    def close(self) -> None:
        """Send what is left, and close."""
        self._writer.close()
