"""Callers of a service whose counters lie in a cluster."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from click.testing import CliRunner

from extauth.cli import app
from extauth.counters.redis.cluster.slots import slot_of
from extauth.limiter.counter_names import KeyNamer
from tests.integration.store_service import Service
from tests.support.cluster import Node
from tests.support.codes import OK, OVER_LIMIT
from tests.support.wait import until_async

RUN: Final = CliRunner()
VALUES: Final = [f"v{i}" for i in range(24)]


def slot(value: str, key: str = "wide") -> int:
    """The slot of a caller's counter."""
    return slot_of(KeyNamer("extauth")("d", [(key, value)]))


class Load:
    """Callers that ask without a pause, each of its own counter, and what they got."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.codes: Counter[int | str] = Counter()
        self.by_value: Counter[str] = Counter()
        self.denied: Counter[int | str] = Counter()
        self._over = False

    async def ask(self, value: str) -> None:
        while not self._over:
            code = await self._service.ask("wide", value=value)
            self.codes[code] += 1
            self.by_value[value] += code == OK

    async def ask_in_vain(self, value: str) -> None:
        while not self._over:
            self.denied[await self._service.ask("tight", value=value)] += 1

    def end(self) -> None:
        self._over = True


@asynccontextmanager
async def load(service: Service, tight: str) -> AsyncIterator[Load]:
    """Also a caller whose limit is used up, and stays so."""
    under = Load(service)
    assert await service.ask("tight", value=tight) == OK
    asking = [asyncio.create_task(under.ask(value)) for value in VALUES]
    asking.append(asyncio.create_task(under.ask_in_vain(tight)))
    try:
        await until_async(lambda: len(under.by_value) == len(VALUES))
        yield under
    finally:
        under.end()
        await asyncio.gather(*asking)
    assert (set(under.codes), set(under.denied)) == ({OK}, {OVER_LIMIT})


async def until_it_counts_at(node: Node) -> None:
    before = await asyncio.to_thread(node.runs)

    async def counts() -> bool:
        return await asyncio.to_thread(node.runs) > before

    await until_async(counts, every_s=0.01)


async def inspect(service: Service, value: str, key: str = "wide") -> int:
    """The hits that the caller's counter has in Redis."""
    config = service.served.folder / "d.yaml"
    environ = {"EXTAUTH_REDIS_URL": service.redis_url, "EXTAUTH_CONFIG": str(config)}
    result = await asyncio.to_thread(RUN.invoke, app, ["inspect", "d", f"{key}={value}"], env=environ)
    match = re.search(r"(\d+) used", result.output)
    assert match, result.output
    return int(match[1])
