"""A node of a cluster that says what a test wants it to say."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Self

import hiredis

from extauth.counters.redis.scripts import bulk
from scripts.stack import free_ports


class FakeNode:
    """Listens at a port of 127.0.0.1, and says that the node at the port `master` serves all slots, in so many `spans`.

    It greets in this `mode` and `role`; to a script it says `error`. `asked` counts how often it was asked who serves
    which slot.
    """

    def __init__(self, mode: str = "cluster", role: str = "master") -> None:
        (self.port,) = free_ports(1)  # not one of those that outgoing connections take
        self.master = self.port
        self.mode, self.role = mode, role
        self.spans = 1
        self.error = "ERR"
        self.asked = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """As messages have it."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        parser = hiredis.Reader()
        try:
            with suppress(ConnectionError):
                while data := await reader.read(65_536):
                    parser.feed(data)
                    while (command := parser.gets()) is not False:
                        writer.write(self._answer([word.upper() for word in command]))
        finally:
            writer.close()

    def _answer(self, command: list[bytes]) -> bytes:
        match command:
            case [b"HELLO", *_]:
                words = (b"mode", self.mode.encode(), b"role", self.role.encode())
                return b"*4\r\n" + b"".join(map(bulk, words))
            case [b"CLUSTER", b"SLOTS"]:
                self.asked += 1
                ends = [16384 * i // self.spans for i in range(self.spans + 1)]
                served = b"*2\r\n%b:%d\r\n" % (bulk(b"127.0.0.1"), self.master)
                spans = [b"*3\r\n:%d\r\n:%d\r\n%b" % (a, b - 1, served) for a, b in pairwise(ends)]
                return b"*%d\r\n%b" % (self.spans, b"".join(spans))
            case [b"EVALSHA" | b"EVAL", *_]:
                return f"-{self.error}\r\n".encode()
            case _:
                return b"+OK\r\n"


class SilentNode:
    """Takes connections at a port of 127.0.0.1, and says nothing on them; `connections` is how many there were."""

    def __init__(self) -> None:
        self.connections = 0
        self.address = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()

    async def _accept(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
