"""A proxy between a service and its store, which a test can switch, hold, slow down and cut."""

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Self

Address = Path | int
"""A Unix socket, or a port of 127.0.0.1."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: a close sends RST


class Conduct(Enum):
    """What the proxy does with bytes."""

    HAND_ON = auto()
    SWALLOW = auto()
    """It accepts what the service sends, and hands nothing on."""
    CUT_ANSWERS = auto()
    """It hands on half of an answer, and closes the connection; short ones, as to AUTH, it leaves whole."""
    HANG_UP = auto()
    """It closes each new connection."""


_SHORT = 16  # bytes: an answer to a command that makes a connection


class Proxy:
    """Listens at `address`, and hands each connection on to what `target` names at the time.

    Between `hold` and `release` what the store answers is kept back; `answered` is set once that has the awaited bytes.
    `connections` counts those that came. Answers are handed on `delay_s` seconds late. With `tls` the service speaks
    TLS with the proxy.
    """

    def __init__(self, address: Address, target: Address, *, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.target = target
        self.conduct = Conduct.HAND_ON
        self.delay_s = 0.0
        self.connections = 0
        self.answered = asyncio.Event()
        self._tls = tls
        self._holding = False
        self._awaited = b""
        self._kept: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Its address as EXTAUTH_REDIS_URL."""
        if isinstance(self.address, Path):
            return f"unix://{self.address}"
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.address}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        self.release()
        self.cut()
        await asyncio.gather(*self._tasks)

    async def listen(self) -> None:
        """Accept connections, again after `refuse`."""
        if isinstance(self.address, Path):
            self._server = await asyncio.start_unix_server(self._serve, self.address, ssl=self._tls)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.address, ssl=self._tls)

    def refuse(self) -> None:
        """Reset all connections, and accept no more."""
        self._server.close()
        self.cut()

    def hold(self, awaited: bytes = b"") -> None:
        """Keep answers back from now on; the `awaited` bytes are part of one of them."""
        self.answered.clear()
        self._awaited = awaited
        self._holding = True

    def release(self) -> None:
        """Hand on what was kept back, and what comes."""
        self._holding = False
        for writer, data in self._kept:
            writer.write(data)
        self._kept.clear()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self.conduct is Conduct.HANG_UP:
            writer.close()
            return
        try:
            if isinstance(self.target, Path):
                store_reader, store_writer = await asyncio.open_unix_connection(self.target)
            else:
                store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        pair = {writer, store_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._hand_on(reader, store_writer), self._hand_back(store_reader, writer))
        finally:
            self._writers -= pair

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self.conduct is not Conduct.SWALLOW:
                    writer.write(data)
        writer.close()

    async def _hand_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, last_at = asyncio.get_running_loop(), 0.0
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self.conduct is Conduct.CUT_ANSWERS and len(data) > _SHORT:
                    writer.write(data[: len(data) // 2])
                    break
                if self._holding:
                    self._kept.append((writer, data))
                    if self._awaited in data:
                        self.answered.set()
                elif self.delay_s or loop.time() < last_at:  # in order, also once the delay has gone
                    last_at = max(loop.time() + self.delay_s, last_at)
                    loop.call_at(last_at, writer.write, data)
                else:
                    writer.write(data)
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection at once: with RST where it is one of TCP."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
