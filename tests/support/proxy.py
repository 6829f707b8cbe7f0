"""A proxy between a service and its store, which a test can switch, hold and cut."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Self


class Proxy:
    """Listens on a Unix socket, and hands each connection on to the Unix socket that `target` names at the time.

    Between `hold` and `release` what the store answers is kept back; `answered` is set once that has the awaited bytes.
    `connections` counts those that came.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.url = f"unix://{path}"
        self.target = target
        self.connections = 0
        self.answered = asyncio.Event()
        self._holding = False
        self._awaited = b""
        self._kept: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        self.release()
        self.cut()
        await asyncio.gather(*self._tasks)

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
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
        store_reader, store_writer = await asyncio.open_unix_connection(self.target)
        self._writers |= {writer, store_writer}
        await asyncio.gather(self._hand_on(reader, store_writer), self._hand_back(store_reader, writer))

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def _hand_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if not self._holding:
                    writer.write(data)
                    continue
                self._kept.append((writer, data))
                if self._awaited in data:
                    self.answered.set()
        writer.close()
