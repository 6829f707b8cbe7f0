"""What the end-to-end tests see of a running stack: its edge as a client does, and its instruments."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import redis
from prometheus_client.parser import text_string_to_metric_families

from scripts.stack import Stack
from tests.support.wait import until_async

# Limits by the day: the tightest refills one request every 14 minutes, so a slow run sees the same counts.
CONFIG = """\
domain: api
algorithm: gcra
labels: [path]
tiers:
  anonymous: { unit: day, requests_per_unit: 2 }
  free: { unit: day, requests_per_unit: 10, replaces: [{ name: anonymous }] }
  premium: { unit: day, requests_per_unit: 20, replaces: [{ name: anonymous }] }
  bulk: { unit: day, requests_per_unit: 100, replaces: [{ name: anonymous }] }
descriptors:
  - { key: api_key, value: free-tier-key, tier: free }
  - { key: api_key, value: premium-tier-key, tier: premium }
  - { key: api_key, value: bulk-tier-key, tier: bulk }
  - { key: masked_remote_address, tier: anonymous }
"""
FREE, PREMIUM, BULK = "free-tier-key", "premium-tier-key", "bulk-tier-key"


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    text: str


class Edge:
    """A client of the stack's edge."""

    def __init__(self, stack: Stack, config: Path) -> None:
        self.stack = stack
        self.config = config  # the file of descriptors that extauth serves

    async def get(
        self,
        path: str = "/",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> Answer:
        """One GET, from a source address of the loopback range."""
        return (await self.get_many(1, path, key=key, headers=headers, source=source))[0]

    async def get_many(
        self,
        count: int,
        path: str = "/",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str = "127.0.0.1",
        at_once: int = 1,
    ) -> list[Answer]:
        """GETs, so many at once; the answers stand in the order of the requests."""
        sent = {**(headers or {}), **({} if key is None else {"x-api-key": key})}
        gate = asyncio.Semaphore(at_once)
        connector = aiohttp.TCPConnector(limit=at_once, local_addr=(source, 0))
        async with aiohttp.ClientSession(self.stack.url, connector=connector) as session:

            async def one() -> Answer:
                async with gate, session.get(path, headers=sent, allow_redirects=False) as response:
                    return Answer(response.status, response.headers, await response.text())

            return await asyncio.gather(*(one() for _ in range(count)))

    async def statuses(self, count: int, *, key: str | None = None, at_once: int = 1) -> list[int]:
        """The statuses of that many GETs of /."""
        return [answer.status for answer in await self.get_many(count, key=key, at_once=at_once)]

    async def until(self, check: Callable[[], Awaitable[bool]], what: str, *, within_s: float = 15) -> float:
        """Poll until the check holds; returns the seconds that took."""
        return await until_async(check, what, within_s=within_s, every_s=0.02)

    async def metric(self, name: str, **labels: str) -> list[float]:
        """A metric's value at each replica: the sum of the samples that bear the labels."""
        values = []
        for replica in self.stack.ports.extauth:
            text = await self.fetch(replica.admin, "/metrics")
            samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
            values.append(
                sum(
                    sample.value
                    for sample in samples
                    if sample.name == name and labels.items() <= sample.labels.items()
                )
            )
        return values

    async def envoy_ratelimit(self) -> dict[str, int]:
        """Envoy's own counts of what came of the rate limit calls: ok, over_limit, error, failure_mode_allowed."""
        text = await self.fetch(self.stack.ports.envoy_admin, r"/stats?filter=cluster\.echo\.ratelimit\.")
        return {
            name.rpartition(".")[2]: int(value)
            for name, _, value in (line.partition(": ") for line in text.splitlines())
        }

    async def envoy_stat(self, name: str) -> int:
        """One of Envoy's counters."""
        text = await self.fetch(self.stack.ports.envoy_admin, "/stats?filter=" + name.replace(".", r"\."))
        return int(dict(line.split(": ") for line in text.splitlines()).get(name, "0"))

    async def fetch(self, port: int, path: str) -> str:
        """The body of a GET that must succeed, on any of the stack's own ports."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            assert response.status == 200, f"{path}: {response.status}"
            return await response.text()

    def redis(self) -> redis.Redis:
        """A connection to the store."""
        return redis.Redis.from_url(self.stack.redis_url)
