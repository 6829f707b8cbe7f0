"""One of two replicas is cut off from the store: Envoy has the calls counted by the other."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scripts.stack import Ports, Stack, free_ports
from tests.e2e.conftest import ROOT
from tests.e2e.edge import Edge
from tests.support.environ import INHERITED
from tests.support.proxy import Proxy
from tests.support.stores import Store

LIMIT = 500
AT_LEAST = 1200  # requests
CONFIG = f"""\
domain: api
descriptors:
  - {{ key: api_key, rate_limit: {{ unit: year, requests_per_unit: {LIMIT} }} }}
  - {{ key: masked_remote_address, rate_limit: {{ unlimited: true }} }}
"""


@asynccontextmanager
async def launched(
    store: Store, folder: Path, settings: Mapping[str, str], *, replicas: int = 2
) -> AsyncIterator[tuple[Edge, Proxy]]:
    """A stack whose first replica reaches the store by a proxy."""
    file = folder / "api.yaml"
    file.write_text(CONFIG)
    # These tests count exactly: a machine that stalls for a moment must not let a request pass uncounted.
    env = {**INHERITED, "EXTAUTH_CONFIG": str(file), "EXTAUTH_REDIS_TIMEOUT": "10", **settings}
    async with Proxy(free_ports(1)[0], store.socket) as proxy:
        stack = Stack(
            ROOT,
            folder / "run",
            ports=Ports.free(replicas),
            env=env,
            prometheus=False,
            ratelimit_timeout_s=20,
            redis_urls=(proxy.url, *[store.url] * (replicas - 1)),
        )
        try:
            await asyncio.to_thread(stack.up)
            yield Edge(stack, file), proxy
        finally:
            await asyncio.to_thread(stack.down)


async def detail(edge: Edge, replica: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(await edge.fetch(edge.stack.ports.extauth[replica].admin, "/readyz"))
    return found


async def health_flags(edge: Edge) -> list[str]:
    """What Envoy finds of each replica."""
    lines = (await edge.fetch(edge.stack.ports.envoy_admin, "/clusters")).splitlines()
    flags = dict(line.removeprefix("extauth::").split("::health_flags::") for line in lines if _is_of_extauth(line))
    return [flags[f"127.0.0.1:{replica.grpc}"] for replica in edge.stack.ports.extauth]


def _is_of_extauth(line: str) -> bool:
    return line.startswith("extauth::") and "::health_flags::" in line


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize(
    ("settings", "over"),
    [
        ({"EXTAUTH_ON_STORE_FAILURE": "error"}, 0),
        ({"EXTAUTH_ON_STORE_FAILURE": "local"}, LIMIT),
        ({"EXTAUTH_ON_STORE_FAILURE": "local", "EXTAUTH_LOCAL_SHARE": "auto"}, LIMIT // 2),
    ],
)
async def test_from_when_its_breaker_opens_the_other_one_counts(
    own_store: Store, short_path: Path, settings: dict[str, str], over: int
) -> None:
    async with launched(own_store, short_path, settings) as (edge, proxy):

        async def both_know_each_other() -> bool:
            return [(await detail(edge, i))["replicas"] for i in (0, 1)] == [2, 2]

        async def breaker_is_open() -> bool:
            return (await detail(edge, 0))["breaker"] == "open"

        await edge.until(both_know_each_other, "the replicas know each other")
        proxy.refuse()
        await edge.until(breaker_is_open, "the breaker opens")
        statuses: list[int] = []
        while len(statuses) < AT_LEAST or "/failed_active_hc" not in (await health_flags(edge))[0]:
            statuses += await edge.statuses(100, key="key", at_once=10)
        assert LIMIT <= statuses.count(200) <= LIMIT + over
        assert statuses.count(429) == len(statuses) - statuses.count(200)
        assert (await edge.envoy_ratelimit()).get("error", 0) == 0, "each call was decided"
        assert (await health_flags(edge))[1] == "healthy"
        if not over:
            assert await edge.envoy_stat("cluster.extauth.upstream_rq_retry_success") > 0

        await proxy.listen()

        async def both_are_used() -> bool:
            return await health_flags(edge) == ["healthy"] * 2

        await edge.until(both_are_used, "Envoy uses it again")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize(("replicas", "put_out"), [(1, 0), (2, 1)])
async def test_where_the_store_is_away_for_all_the_last_is_never_put_out(
    own_store: Store, short_path: Path, replicas: int, put_out: int
) -> None:
    settings = {"EXTAUTH_ON_STORE_FAILURE": "error"}
    async with launched(own_store, short_path, settings, replicas=replicas) as (edge, _):
        own_store.stop()

        async def breakers_are_open() -> bool:
            return all([(await detail(edge, i))["breaker"] == "open" for i in range(replicas)])

        await edge.until(breakers_are_open, "the breakers open")
        await edge.statuses(100, key="key", at_once=10)
        assert await edge.envoy_stat("cluster.extauth.outlier_detection.ejections_active") == put_out
        assert (await health_flags(edge)).count("healthy") == 1
        assert await edge.envoy_stat("cluster.extauth.upstream_cx_none_healthy") == 0
        tries = await edge.envoy_stat("cluster.extauth.upstream_rq_total")
        await edge.statuses(100, key="key", at_once=10)
        assert 100 <= await edge.envoy_stat("cluster.extauth.upstream_rq_total") - tries <= 200, "each is tried twice"
