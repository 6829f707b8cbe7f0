"""Clients that keep a rate of calls: one of Envoy's edge over HTTP/2, and one of a replica over gRPC.

A call that is answered late is late in the numbers too: calls do not wait for one another (an open loop).
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from grpc import StatusCode
from jh2.hpack import Decoder

from extauth.rls.protobuf import bytes_field
from extauth.transport.h2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    MAX_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    ErrorCode,
    frame,
    rst_stream,
    settings,
    window_update,
)
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.calls import call, descriptor, head
from tests.support.wait import until_async

OK: Final = "OK"
OVER: Final = "OVER_LIMIT"
LOST: Final = "LOST"
"""The connection ended, or there was none."""
SILENT: Final = "SILENT"
"""No answer in GIVE_UP_S."""
GIVE_UP_S: Final = 10.0
ENVOYS_TIMEOUT_MS: Final = 250
SECOND_KEY: Final = "api_key_again"
"""The key of a second descriptor with the API key, whose counter lies on another shard."""
_GRPC_STATUS = {code.value[0]: code.name for code in StatusCode}


@dataclass
class Answer:
    """What came back on a stream."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Kind(Protocol):
    """What is asked: how a call is written, and how its answer is read."""

    def request(self, stream: int, key: str) -> bytes:
        """A call of the caller with this API key, in frames."""
        ...

    def result(self, answer: Answer) -> str:
        """OK, OVER, or the name of what else came."""
        ...


class Edge:
    """A GET through Envoy."""

    _USUAL = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x"))
    _RESULTS: Final = {"200": OK, "429": OVER}

    def request(self, stream: int, key: str) -> bytes:
        """See Kind."""
        fields = (*self._USUAL, (b"x-api-key", key.encode()))
        block = b"".join(literal(name, value) for name, value in fields)
        return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)

    def result(self, answer: Answer) -> str:
        """See Kind."""
        status = answer.fields.get(":status", "no status")
        return self._RESULTS.get(status, status)


class Direct:
    """ShouldRateLimit at a replica, with the timeout that Envoy sends.

    With `twice`, the API key comes in a second descriptor, too, as in chaos.load.config.
    """

    _BLOCK: Final = head(("grpc-timeout", f"{ENVOYS_TIMEOUT_MS}m"))
    _RESULTS: Final = {b"\x08\x01": OK, b"\x08\x02": OVER}  # RateLimitResponse: overall_code is field 1

    def __init__(self, *, twice: bool = False) -> None:
        self._names = ("api_key", SECOND_KEY) if twice else ("api_key",)

    def request(self, stream: int, key: str) -> bytes:
        """See Kind."""
        descriptors = b"".join(descriptor((name, key)) for name in self._names)
        return call(stream, prefixed(bytes_field(1, b"api") + descriptors), self._BLOCK)

    def result(self, answer: Answer) -> str:
        """See Kind."""
        status = int(answer.fields.get("grpc-status", StatusCode.UNKNOWN.value[0]))
        return _GRPC_STATUS[status] if status else self._RESULTS.get(answer.body[5:7], "no code")


Ended = Callable[[float, str, str], None]
"""(when it was sent on time.monotonic, key, result) of a call that has ended now."""


class Connection(asyncio.Protocol):
    """One connection; `open` are its calls that are not answered, by stream."""

    def __init__(self, kind: Kind, ended: Ended) -> None:
        self._kind, self._ended = kind, ended
        self._decoder: Any = Decoder()
        self._answers: dict[int, Answer] = {}
        self._next, self._rest = 1, b""
        self._transport: asyncio.Transport | None = None
        self.open: dict[int, tuple[float, str]] = {}
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, with windows that are never used up."""
        self._transport = transport  # type: ignore[assignment] # one of TCP
        greeting = settings({SETTINGS_INITIAL_WINDOW_SIZE: MAX_WINDOW})
        self._write(PREFACE + greeting + window_update(0, MAX_WINDOW - 65_535))
        self.usable = True

    def connection_lost(self, _error: Exception | None) -> None:
        """Its open calls are lost."""
        self.usable, self._transport = False, None
        for sent_at, key in self.open.values():
            self._ended(sent_at, key, LOST)
        self.open.clear()

    def ask(self, key: str) -> None:
        """Send a call."""
        self.open[self._next] = (time.monotonic(), key)
        self._write(self._kind.request(self._next, key))
        self._next += 2

    def give_up(self) -> None:
        """Reset the calls that wait for too long."""
        late = time.monotonic() - GIVE_UP_S
        for stream in [stream for stream, (sent_at, _) in self.open.items() if sent_at < late]:
            self._write(rst_stream(stream, ErrorCode.CANCEL))
            self._end(stream, SILENT)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        data, at = self._rest + data, 0
        while len(data) - at >= HEAD.size:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            begin = at + HEAD.size
            end = begin + (high << 8 | low)
            if end > len(data):
                break
            self._receive(kind, flags, stream, data[begin:end])
            at = end
        self._rest = data[at:]

    def _receive(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            fields = {str(name): str(value) for name, value in self._decoder.decode(payload)}
            self._answers.setdefault(stream, Answer()).fields |= fields
        elif kind == DATA:
            self._answers.setdefault(stream, Answer()).body += payload
        elif kind == RST_STREAM:
            self._end(stream, f"reset {int.from_bytes(payload, 'big')}")
        elif kind == GOAWAY:
            self.usable = False  # what is open goes on
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._write(frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self._end(stream, self._kind.result(self._answers[stream]))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self, stream: int, result: str) -> None:
        self._answers.pop(stream, None)
        if stream in self.open:
            sent_at, key = self.open.pop(stream)
            self._ended(sent_at, key, result)


class Client:
    """Calls at a port of 127.0.0.1 over a few connections, which are made again when they are lost."""

    CONNECTIONS: Final = 8
    OPEN_CALLS: Final = 100
    """On a connection, as envoy.yaml allows. Where all have as many, no call is sent."""
    RETRY_S: Final = 0.02

    def __init__(self, port: int, kind: Kind, ended: Ended) -> None:
        self._port, self._kind, self._ended = port, kind, ended
        self._connections: list[Connection] = []
        self._old: list[Connection] = []
        self._turn = 0
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and stay connected."""
        await self._keep()
        self._keeper = asyncio.create_task(self._keep_on())

    async def stop(self) -> None:
        """Wait for the answers that are due, and hang up."""
        await until_async(lambda: not any(connection.open for connection in self._every()), within_s=2 * GIVE_UP_S)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for connection in self._every():
            connection.close()

    def ask(self, key: str) -> None:
        """Send a call, on each connection in turn."""
        self._turn += 1
        usable = [connection for connection in self._connections if connection.usable]
        with_room = [connection for connection in usable if len(connection.open) < self.OPEN_CALLS]
        if with_room:
            with_room[self._turn % len(with_room)].ask(key)
        elif not usable:
            self._ended(time.monotonic(), key, LOST)

    def _every(self) -> list[Connection]:
        return [*self._connections, *self._old]

    async def _keep_on(self) -> None:
        while True:
            await asyncio.sleep(self.RETRY_S)
            for connection in self._every():
                connection.give_up()
            await self._keep()

    async def _keep(self) -> None:
        self._old = [each for each in self._every() if not each.usable and each.open]
        self._connections = [each for each in self._connections if each.usable]
        loop = asyncio.get_running_loop()
        while len(self._connections) < self.CONNECTIONS:
            connection = Connection(self._kind, self._ended)
            try:
                async with asyncio.timeout(1):
                    await loop.create_connection(lambda new=connection: new, "127.0.0.1", self._port)  # type: ignore[misc]
            except (OSError, TimeoutError):
                return
            self._connections.append(connection)
