"""An HTTP/2 peer that sends exactly the bytes that it is told to, and a server for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from time import perf_counter
from typing import Any

from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from jh2.hpack import Decoder

from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, TakeResult
from extauth.rls.request import SERVICE
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Batcher
from extauth.transport.deadlines import Clock
from extauth.transport.engine import ConnectionLimits, EngineContext, Guard
from extauth.transport.h2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    settings,
)
from extauth.transport.h2.grpc_framing import literal, prefixed
from extauth.transport.h2.server import H2Server
from extauth.transport.tls import Tls
from tests.support.clock import Clock as UnixClock
from tests.support.facts import Recorded
from tests.support.service import decider_of

PATH = f"/{SERVICE}/ShouldRateLimit"
CONFIG = """
domain: api
algorithm: gcra
descriptors: [{key: api_key, rate_limit: {unit: hour, requests_per_unit: 1000}}]
"""
# RateLimitRequest{domain: "api", descriptors: [{entries: [{key: "api_key", value: "k"}]}]}
MESSAGE = b"\x0a\x03api\x12\x0e\x0a\x0c\x0a\x07api_key\x12\x01k"
START = PREFACE + settings({})


def block(path: str = PATH, *extra: tuple[str, str], method: str = "POST", grpc: bool = True) -> bytes:
    """A request's header block, without the dynamic table."""
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
    if grpc:
        fields += [("te", "trailers"), ("content-type", "application/grpc")]
    return b"".join(literal(name.encode(), value.encode()) for name, value in (*fields, *extra))


BLOCK = block()


def call(stream: int, message: bytes = MESSAGE, head: bytes = BLOCK) -> bytes:
    """A whole call."""
    return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, prefixed(message))


@dataclass
class Answer:
    """What came back on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The gRPC status, wherever it stands."""
        return int((self.trailers or self.headers).get("grpc-status", -1))

    @property
    def code(self) -> int:
        """The overall code of an OK answer: 1 OK, 2 OVER_LIMIT."""
        assert self.status == 0, (self.headers, self.trailers)
        assert int.from_bytes(self.body[:5], "big") == len(self.body) - 5
        return int(RateLimitResponse.parse(self.body[5:]).overall_code)

    @property
    def text(self) -> str:
        """The gRPC status's text."""
        return (self.trailers or self.headers).get("grpc-message", "")


class Peer:
    """A client by hand. What it received is sorted: `answers`, `goaways` (last stream, code, text), `pings`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int, str]] = []
        self.pings: list[tuple[int, bytes]] = []
        self.settings_acks = 0
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.closed = False
        self._decoder: Any = Decoder()

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self.writer.write(b"".join(parts))

    async def until(self, true: Callable[[], object]) -> "Peer":
        """Receive until it holds."""
        async with asyncio.timeout(20):
            while not true():
                assert not self.closed, (self.goaways, self.answers)
                await self._receive()
        return self

    async def answered(self, *streams: int) -> list[Answer]:
        """Receive until these streams have ended, and return what they got."""

        def done() -> bool:
            return all(self.answers.get(s, Answer()).ended or self.answers[s].reset is not None for s in streams)

        await self.until(lambda: all(s in self.answers for s in streams) and done())
        return [self.answers[stream] for stream in streams]

    async def ended(self) -> tuple[int, str]:
        """Receive until the server has closed the connection; the last GOAWAY's code and text."""
        await self.gone()
        assert self.goaways, "closed without GOAWAY"
        return self.goaways[-1][1:]

    async def gone(self) -> None:
        """Receive until the server has closed the connection."""
        async with asyncio.timeout(20):
            while not self.closed:
                await self._receive()

    async def _receive(self) -> None:
        try:
            high, low, kind, flags, stream = HEAD.unpack(await self.reader.readexactly(9))
            payload = await self.reader.readexactly(high << 8 | low)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            return
        self.frames.append((kind, flags, stream, payload))
        if kind in (HEADERS, DATA, RST_STREAM):
            answer = self.answers.setdefault(stream, Answer())
            if kind == HEADERS:
                fields = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                if answer.headers:
                    answer.trailers = fields
                else:
                    answer.headers = fields
            elif kind == DATA:
                answer.body += payload
            else:
                answer.reset = int.from_bytes(payload, "big")
            answer.ended = answer.ended or bool(kind != RST_STREAM and flags & END_STREAM)
        elif kind == GOAWAY:
            last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
            self.goaways.append((last, code, payload[8:].decode()))
        elif kind == PING:
            self.pings.append((flags, payload))
        elif kind == SETTINGS and flags & ACK:
            self.settings_acks += 1

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()


class Held(MemoryCounters):
    """Counters that wait while they are held; `calls` counts what was asked of them."""

    def __init__(self) -> None:
        super().__init__(UnixClock())
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        self.calls += sum(group.calls for group in groups)
        await self.open.wait()
        return await super().take(groups)


class Serving:
    """An h2 engine on a Unix socket.

    `tripped` are the guards that were, and `shed` why calls got the failure `policy`, both in order.
    """

    def __init__(
        self,
        folder: Path,
        limits: ConnectionLimits | None = None,
        config: str = CONFIG,
        policy: OnStoreFailure = OnStoreFailure.DENY,
        max_waiting: int = 20_000,
        *,
        tls: Tls | None = None,
        clock: Clock = perf_counter,
    ) -> None:
        self.path = str(folder / "grpc")
        self.counters = Held()
        self.tripped: list[Guard] = []
        self.recorded = Recorded()
        decider = decider_of(config, self.counters, LimiterOptions(on_store_failure=policy))
        self.planner = decider.planner
        batcher = Batcher(decider, [self.recorded], max_in_flight=1, max_waiting=max_waiting, clock=clock)
        context = EngineContext(
            planner=self.planner,
            batcher=batcher,
            limits=limits or ConnectionLimits(),
            on_guard=self.tripped.append,
            tls=tls,
        )
        self.server = H2Server(f"unix:{self.path}", context)
        self._peers: list[Peer] = []

    @property
    def shed(self) -> list[str]:
        return [fact.reason for fact in self.recorded.shed]

    async def connect(self, *, start: bool = True, tls: SSLContext | None = None) -> Peer:
        """A new connection; with `start`, the preface and SETTINGS are sent."""
        name = "localhost" if tls else None
        peer = Peer(*await asyncio.open_unix_connection(self.path, ssl=tls, server_hostname=name))
        self._peers.append(peer)
        if start:
            peer.send(START)
        return peer

    async def asked(self, calls: int = 1) -> None:
        """Wait until the counters are asked about so many calls."""
        async with asyncio.timeout(20):
            while self.counters.calls < calls:
                await asyncio.sleep(0)

    async def works(self) -> None:
        """Others are served."""
        peer = await self.connect()
        peer.send(call(1))
        (answer,) = await peer.answered(1)
        assert answer.status == 0
        await peer.close()

    async def close(self) -> None:
        """Hang up everything."""
        self.counters.open.set()
        for peer in self._peers:
            await peer.close()
        await self.server.stop(1)


@asynccontextmanager
async def serving(
    folder: Path,
    limits: ConnectionLimits | None = None,
    config: str = CONFIG,
    policy: OnStoreFailure = OnStoreFailure.DENY,
    max_waiting: int = 20_000,
    *,
    tls: Tls | None = None,
    clock: Clock = perf_counter,
) -> AsyncIterator[Serving]:
    """An h2 engine that serves."""
    served = Serving(folder, limits, config, policy, max_waiting, tls=tls, clock=clock)
    await served.server.start()
    try:
        yield served
    finally:
        await served.close()
