"""A request on two masters of a real cluster, one of which is dead: who counts what, and what is given back."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth.cli import app
from extauth.counters.redis.cluster.slots import slot_of
from extauth.limiter.counter_names import KeyNamer
from tests.integration.store_service import Serve, Service
from tests.support.cluster import PARTLY, Node, RealCluster
from tests.support.codes import OK, OVER_LIMIT
from tests.support.wait import until_async

RUN = CliRunner()
VALUES = [f"v{i}" for i in range(200)]


@pytest.fixture
async def cluster(short_path: Path) -> AsyncIterator[RealCluster]:
    cluster = RealCluster("valkey", short_path / "c", masters=3, replicas=False, options=PARTLY)
    await asyncio.to_thread(cluster.start)
    yield cluster
    cluster.stop()


def owner(cluster: RealCluster, key: str, value: str) -> Node:
    return cluster.owner(slot_of(KeyNamer("extauth")("d", [(key, value)])))


async def used(service: Service, key: str, value: str) -> int:
    """The hits that a counter has in Redis."""
    environ = {"EXTAUTH_REDIS_URL": service.redis_url, "EXTAUTH_CONFIG": str(service.served.folder / "d.yaml")}
    result = await asyncio.to_thread(RUN.invoke, app, ["inspect", "d", f"{key}={value}"], env=environ)
    match = re.search(r"(\d+) used", result.output)
    assert match, result.output
    return int(match[1])


async def until_used(service: Service, key: str, value: str, hits: int) -> None:
    async def so() -> bool:
        return await used(service, key, value) == hits

    await until_async(so, every_s=0.05)


@pytest.mark.timeout(60)
async def test_the_live_master_denies_and_the_policy_decides_the_rest(cluster: RealCluster, serve: Serve) -> None:
    dead = cluster.masters[1]
    tight_lives = [v for v in VALUES if owner(cluster, "tight", v) is not dead and owner(cluster, "deep", v) is dead]
    deep_lives = [v for v in VALUES if owner(cluster, "tight", v) is dead and owner(cluster, "deep", v) is not dead]
    local, deny = serve(cluster.url, EXTAUTH_ON_STORE_FAILURE="local"), serve(cluster.url)
    for service in (local, deny):
        await service.until_store("up")
    assert await local.ask("tight", also="deep", value=deep_lives[2]) == OK
    await asyncio.to_thread(dead.stop, signal.SIGKILL)
    for service in (local, deny):
        await service.until_store("down: .*")

    async def ask(service: Service, value: str) -> list[int | str]:
        return [await service.ask("tight", also="deep", value=value) for _ in range(3)]

    # `tight` admits one request.
    assert await ask(local, tight_lives[0]) == [OK, OVER_LIMIT, OVER_LIMIT], "by the master that lives"
    assert await used(local, "tight", tight_lives[0]) == 1
    assert await ask(local, deep_lives[0]) == [OK, OVER_LIMIT, OVER_LIMIT], "by the replica's own counter"
    await until_used(local, "deep", deep_lives[0], 1)
    assert await ask(local, deep_lives[2]) == [OVER_LIMIT] * 3, "who was used up before stays so"
    await until_used(local, "deep", deep_lives[2], 1)

    assert await ask(deny, tight_lives[1]) == [OVER_LIMIT] * 3
    await until_used(deny, "tight", tight_lives[1], 0)
    assert await ask(deny, deep_lives[1]) == [OVER_LIMIT] * 3
    await until_used(deny, "deep", deep_lives[1], 0)

    await asyncio.to_thread(dead.start)
    for service in (local, deny):
        await service.until_store("up")
    await until_used(local, "deep", tight_lives[0], 1)  # what was counted without it
    await until_used(local, "tight", deep_lives[0], 1)
    assert await used(deny, "deep", tight_lives[1]) == 0
