"""`extauth serve` on a store that fails, and a client that sees it."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor, RateLimitDescriptorEntry
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse

from extauth.rls.request import SERVICE
from tests.support.process import Served
from tests.support.wait import until_async

CONFIG = """
domain: d
descriptors:
  - {key: tight, rate_limit: {unit: hour, requests_per_unit: 1, algorithm: gcra}}
  - {key: wide, rate_limit: {unit: hour, requests_per_unit: 100000}}
  - {key: few, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: brief, rate_limit: {unit: second, requests_per_unit: 1}}
  - {key: kept, rate_limit: {unit: year, requests_per_unit: 1, count_denied: false}}
  - {key: logged, rate_limit: {unit: year, requests_per_unit: 1, algorithm: sliding_window}}
  - {key: deep, rate_limit: {unit: day, requests_per_unit: 100000, count_denied: false}}
"""


def call(*keys: str, value: str = "v") -> bytes:
    """A request with a descriptor for each key."""
    entries = [RateLimitDescriptorEntry(key=key, value=value) for key in keys]
    return bytes(RateLimitRequest(domain="d", descriptors=[RateLimitDescriptor(entries=[entry]) for entry in entries]))


class Service:
    """`extauth serve` as a process that denies what it cannot count, and a client of it."""

    def __init__(self, folder: Path, redis_url: str, **settings: str) -> None:
        config = folder / "d.yaml"
        config.write_text(CONFIG)
        self.redis_url = redis_url
        defaults = {
            "EXTAUTH_REDIS_URL": redis_url,
            "EXTAUTH_REDIS_TIMEOUT": "5",  # of a test machine that is busy too, no timeout is to be counted
            "EXTAUTH_ON_STORE_FAILURE": "deny",
            "EXTAUTH_DENIAL_CACHE": "0",
            "EXTAUTH_LOG_FORMAT": "json",
        }
        self.served = Served(folder, config, settings=defaults | settings)
        self.process, self.log = self.served.process, self.served.log
        self.channel = grpc.aio.insecure_channel(self.served.address)
        self._ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit"
        )

    async def ask(self, key: str, timeout_s: float = 20, *, also: str = "", value: str = "v") -> int | str:
        """The code of the answer, or the status of a call that failed; `also` is the key of another descriptor."""
        try:
            request = call(*filter(None, (key, also)), value=value)
            answer = await self._ask(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return int(RateLimitResponse.parse(answer).overall_code)

    async def ask_many(self, key: str, calls: int, at_once: int = 4) -> Counter[int | str]:
        codes: Counter[int | str] = Counter()

        async def worker() -> None:
            for _ in range(calls // at_once):
                codes[await self.ask(key)] += 1

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return codes

    async def get(self, path: str) -> str:
        return (await asyncio.to_thread(self.served.get, path))[1]

    async def store(self) -> str:
        """How `/readyz` says the store is."""
        return str(json.loads(await self.get("/readyz"))["store"])

    async def metric(self, name: str) -> float:
        """The sum of the series that begin so."""
        lines = (await self.get("/metrics")).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    async def until_store(self, pattern: str) -> None:
        async def so() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return re.fullmatch(pattern, await self.store()) is not None
            except OSError:  # it does not listen yet
                return False

        await until_async(so, self.log.read_text, every_s=0.02)

    async def until_events(self, *events: str) -> None:
        """Wait until these are the events in the log, `serving` aside."""
        await until_async(lambda: [e for e in self.events() if e != "serving"] == [*events], self.log.read_text)

    def events(self) -> list[str]:
        """The log, a word a line; whatever is no event of ours stands there whole."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines())
        return [line["event"] for line in lines]


Serve = Callable[..., Service]
"""Starts a service with its Redis URL and settings."""


@asynccontextmanager
async def services(folder: Path) -> AsyncIterator[Serve]:
    """What starts services with their Redis URL and settings; they end together."""
    started: list[Service] = []

    def start(redis_url: str, **settings: str) -> Service:
        own = folder / f"e{len(started)}"
        own.mkdir()
        started.append(Service(own, redis_url, **settings))
        return started[-1]

    try:
        yield start
    finally:
        for service in started:
            await service.channel.close()
            service.process.kill()
            service.process.wait()
