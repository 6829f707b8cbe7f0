"""An xDS server that sends what a test tells it to, and whoever follows its rules."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio

from extauth.config.sources.xds import XdsSource
from extauth.config.sources.xds_settings import XdsOptions, XdsServer
from extauth.errors import ConfigError
from extauth.rules.model import RuleSet
from tests.support.ports import free_port
from tests.support.wait import until_async
from tests.support.xds_messages import request

METHOD = "StreamAggregatedResources"
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class FakeXds:
    """Listens at `address`. What comes is in `requests`, a list a stream; `reply`, if set, answers each request."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.requests: list[list[Any]] = []
        self.reply: Callable[[Any], bytes | None] = lambda _: None
        self.metadata: list[dict[str, str | bytes]] = []
        self._out: list[asyncio.Queue[bytes | None]] = []
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler: Any = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    def push(self, message: bytes) -> None:
        """Send it on the newest stream."""
        self._out[-1].put_nowait(message)

    def end_stream(self) -> None:
        """End the newest stream well."""
        self._out[-1].put_nowait(None)

    async def until_requests(self, number: int, stream: int = -1) -> list[Any]:
        """The requests of a stream, once there are so many."""
        await until_async(
            lambda: len(self.requests) > max(stream, 0) and len(self.requests[stream]) >= number,
            lambda: self.requests,
        )
        return self.requests[stream]

    async def until_streams(self, number: int) -> None:
        """Wait until there have been so many streams, and each has sent something."""
        await until_async(lambda: len(self.requests) >= number and all(self.requests), lambda: self.requests)

    async def _stream(self, incoming: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        heard: list[Any] = []
        out: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.requests.append(heard)
        self._out.append(out)
        self.metadata.append(dict(context.invocation_metadata()))

        async def hear() -> None:
            async for message in incoming:
                heard.append(request(message))
                if (answer := self.reply(heard[-1])) is not None:
                    out.put_nowait(answer)

        hearing = asyncio.create_task(hear())
        try:
            while (message := await out.get()) is not None:
                yield message
        finally:
            hearing.cancel()


class Reports:
    """What a source reports."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def connected(self, *, waiting: bool) -> None:
        self.lines.append(("connected", waiting))

    def away(self, reason: str) -> None:
        self.lines.append(("away", reason))

    def passed_over(self, type_url: str) -> None:
        self.lines.append(("passed_over", type_url))

    def cache_read(self, domains: int) -> None:
        self.lines.append(("cache_read", domains))

    def cache_failed(self, reason: str) -> None:
        self.lines.append(("cache_failed", reason))

    def named(self, name: str) -> list[Any]:
        return [value for each, value in self.lines if each == name]


class Follower:
    """Follows a source, as a service does; `updates` are the rules that came."""

    def __init__(self, source: XdsSource) -> None:
        self.source = source
        self.updates: list[RuleSet] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        """Cleared, it keeps the follower from putting rules in force."""

    async def run(self) -> None:
        async for rules in self.source.updates():
            assert not isinstance(rules, ConfigError), rules
            self.updates.append(rules)
            await self.go_on.wait()

    async def until_updates(self, number: int) -> RuleSet:
        """The newest rules, once they came so often."""
        await until_async(lambda: len(self.updates) >= number, lambda: self.updates)
        return self.updates[-1]


@asynccontextmanager
async def fake_xds() -> AsyncIterator[FakeXds]:
    server = FakeXds()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def following(
    server: XdsServer | str,
    options: XdsOptions | None = None,
    reports: Reports | None = None,
    **given: Any,  # noqa: ANN401
) -> AsyncIterator[Follower]:
    """Whoever follows the server's rules; `given` are arguments of the source."""
    pauses = {"pauses_s": (0.02, 0.1)}
    source = XdsSource(
        XdsServer(server) if isinstance(server, str) else server,
        options or XdsOptions(),
        reports or Reports(),
        **pauses | given,
    )
    source.read()
    follower = Follower(source)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
