"""The server under test, as its clients see it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import grpc
import grpc.aio
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import (
    RateLimitRequest,
    RateLimitResponse,
    RateLimitResponseCode,
    RateLimitResponseDescriptorStatus,
    RateLimitResponseRateLimitUnit,
)
from envoy_data_plane.envoy.type.v3 import RateLimitUnit
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
METHOD = f"/{SERVICE}/ShouldRateLimit"
ALL_REMAINING = 2**32 - 1
CALL_TIMEOUT_S = 10

Reload = Callable[[int], Awaitable[None]]
"""Has the rule `reload` admit that many a day, and returns once that is in force; raises ConformanceError."""

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels of one address share a connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # a call that is sent again may count twice
)


class Limited(NamedTuple):
    """A status's `current_limit`; `unit` is the enum's name, such as `DAY`."""

    requests_per_unit: int
    unit: str
    name: str = ""


class Status(NamedTuple):
    """One of an answer's `statuses`: `OK` or `OVER_LIMIT`; `reset_s` is `duration_until_reset`, None where absent."""

    code: str
    limit: Limited | None = None
    remaining: int = 0
    reset_s: float | None = None


class Answer(NamedTuple):
    """A `RateLimitResponse`; headers by name in lower case."""

    code: str
    statuses: tuple[Status, ...]
    response_headers: dict[str, str]
    request_headers: dict[str, str]

    @property
    def codes(self) -> list[str]:
        """The statuses' codes."""
        return [status.code for status in self.statuses]

    @property
    def remaining(self) -> list[int]:
        """The statuses' `limit_remaining`."""
        return [status.remaining for status in self.statuses]


class Override(NamedTuple):
    """A descriptor's `limit`; `unit` is a number of envoy.type.v3.RateLimitUnit."""

    requests_per_unit: int
    unit: int = RateLimitUnit.DAY.value


def descriptor(
    *entries: tuple[str, str], hits: int | None = None, negative: bool = False, limit: Override | None = None
) -> RateLimitDescriptor:
    """A descriptor of (key, value) entries; `hits` is its own `hits_addend`, None where it has none."""
    override = None
    if limit is not None:
        override = RateLimitDescriptorRateLimitOverride(requests_per_unit=limit.requests_per_unit)
        override.unit = RateLimitUnit(limit.unit)
    return RateLimitDescriptor(
        entries=[RateLimitDescriptorEntry(key=key, value=value) for key, value in entries],
        limit=override,
        hits_addend=hits,
        is_negative_hits=negative,
    )


def request(domain: str, *descriptors: RateLimitDescriptor, hits: int = 0) -> bytes:
    """A `RateLimitRequest`."""
    return bytes(RateLimitRequest(domain=domain, descriptors=list(descriptors), hits_addend=hits))


@dataclass(frozen=True)
class Server:
    """A connection to the server at `address`; calls are for `domain`, and raise grpc.aio.AioRpcError.

    `reload` edits the rules; None where the suite did not write them.
    """

    address: str
    run: str
    domain: str
    channel: grpc.aio.Channel
    numbers: Iterator[int]
    reload: Reload | None = None

    def at(self, domain: str) -> "Server":
        """The same connection, for calls of another domain."""
        return replace(self, domain=domain)

    @asynccontextmanager
    async def another(self) -> AsyncIterator["Server"]:
        """A connection of its own to the same server."""
        async with open_channel(self.address) as channel:
            yield replace(self, channel=channel)

    def fresh(self) -> str:
        """A value that was never sent."""
        return f"{self.run}-{next(self.numbers)}"

    async def call(self, message: bytes, method: str = METHOD) -> bytes:
        """A unary call, as bytes."""
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return await ask(message, timeout=CALL_TIMEOUT_S)

    async def ask(self, *descriptors: RateLimitDescriptor, hits: int = 0) -> Answer:
        """One `ShouldRateLimit`."""
        return _answer(await self.call(request(self.domain, *descriptors, hits=hits)))

    async def codes(self, *descriptors: RateLimitDescriptor, calls: int) -> list[str]:
        """The overall codes of `calls` equal calls, one after the other."""
        return [(await self.ask(*descriptors)).code for _ in range(calls)]

    async def limit_of(self, *entries: tuple[str, str]) -> int | None:
        """The `requests_per_unit` of the limit that a descriptor of these entries hits, None without one."""
        (status,) = (await self.ask(descriptor(*entries))).statuses
        return None if status.limit is None else status.limit.requests_per_unit

    async def refusal(self, message: bytes, method: str = METHOD) -> str:
        """The name of the gRPC status that a call ends with, such as `INVALID_ARGUMENT`."""
        try:
            await self.call(message, method)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def health(self, service: str = "") -> str:
        """What grpc.health.v1 says of a service, such as `SERVING`, or the gRPC status that the call ends with."""
        try:
            check = health_pb2_grpc.HealthStub(self.channel).Check
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def has_loaded(self, probe: str) -> bool:
        """Whether the rules of the domain with this probe are in force."""
        return (await self.ask(descriptor(("probe", probe)))).remaining == [ALL_REMAINING]


def open_channel(address: str) -> grpc.aio.Channel:
    """A connection to HOST:PORT or unix:PATH, made when it is first used."""
    return grpc.aio.insecure_channel(address, _OPTIONS)


def _answer(message: bytes) -> Answer:
    response = RateLimitResponse.parse(message)
    return Answer(
        _code(response.overall_code),
        tuple(map(_status, response.statuses)),
        {header.key.lower(): header.value for header in response.response_headers_to_add},
        {header.key.lower(): header.value for header in response.request_headers_to_add},
    )


def _status(status: RateLimitResponseDescriptorStatus) -> Status:
    limit, reset = status.current_limit, status.duration_until_reset
    limited = None if limit is None else Limited(limit.requests_per_unit, _unit(limit.unit), limit.name)
    return Status(_code(status.code), limited, status.limit_remaining, None if reset is None else reset.total_seconds())


def _code(code: RateLimitResponseCode) -> str:
    return code.name or str(code.value)


def _unit(unit: RateLimitResponseRateLimitUnit) -> str:
    return unit.name or str(unit.value)
