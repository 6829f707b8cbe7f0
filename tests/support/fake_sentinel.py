"""A sentinel that says what a test wants it to say."""

import asyncio
import select
import ssl
from contextlib import suppress
from typing import Self

import hiredis

from scripts.stack import free_ports

Where = tuple[str, int]


def _bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def _array(*texts: str) -> bytes:
    return b"*%d\r\n" % len(texts) + b"".join(map(_bulk, texts))


class FakeSentinel:
    """Listens at a port of 127.0.0.1, and says that the master of any name is at `master`.

    A `silent` one accepts connections, and answers questions once it is to `speak`. One that is `hanging_up` closes
    each connection; one that is `deaf` answers no PING, of which it had `pings`. `connections` counts those that came,
    and `asked_at` is when it was asked last. With `tls` it speaks nothing else.
    """

    def __init__(self, master: Where | None, tls: ssl.SSLContext | None = None) -> None:
        (self.port,) = free_ports(1)  # not one of those that outgoing connections take
        self.master = master
        self._tls = tls
        self.silent = False
        self.hanging_up = False
        self.deaf = False
        self.pings = 0
        self.connections = 0
        self.questions = 0
        self.asked_at = 0.0  # on the loop's clock
        self._unanswered: list[asyncio.StreamWriter] = []
        self._subscribers: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def subscribers(self) -> int:
        """How many listen to what it announces."""
        return len(self._subscribers)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, again after `stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def stop(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Read nothing more."""
        for writer in self._writers:
            writer.transport.pause_reading()  # type: ignore[attr-defined]

    def hung_up(self) -> bool:
        """Whether the other ends of all connections have closed theirs, which shows though nothing is read."""
        ends = select.poll()
        for writer in self._writers:
            ends.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return len(ends.poll(0)) == len(self._writers)

    def announce(self, old: Where, new: Where) -> None:
        """+switch-master, for the name `m`."""
        text = f"m {old[0]} {old[1]} {new[0]} {new[1]}"
        for writer in self._subscribers:
            writer.write(_array("message", "+switch-master", text))

    def speak(self) -> None:
        """Answer what was asked, and what will be."""
        self.silent = False
        for writer in self._unanswered:
            self._say(writer)
        self._unanswered.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        parser = hiredis.Reader()
        try:
            with suppress(ConnectionError):
                while not self.hanging_up and (data := await reader.read(65_536)):
                    parser.feed(data)
                    while (command := parser.gets()) is not False:
                        self._answer(writer, [word.decode().upper() for word in command])
        finally:
            self._writers.discard(writer)
            self._subscribers.discard(writer)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, command: list[str]) -> None:
        match command:
            case ["HELLO", *_]:
                writer.write(_array("server", "redis", "mode", "sentinel"))
            case ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _]:
                self.questions += 1
                self.asked_at = asyncio.get_running_loop().time()
                if self.silent:
                    self._unanswered.append(writer)
                else:
                    self._say(writer)
            case ["SUBSCRIBE", _]:
                self._subscribers.add(writer)
                writer.write(b"*3\r\n" + _bulk("subscribe") + _bulk("+switch-master") + b":1\r\n")
            case ["PING"]:
                self.pings += 1
                if not self.deaf:
                    writer.write(_array("pong", "") if writer in self._subscribers else b"+PONG\r\n")
            case _:
                writer.write(b"+OK\r\n")

    def _say(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"*-1\r\n" if self.master is None else _array(self.master[0], str(self.master[1])))
