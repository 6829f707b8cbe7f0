"""Another EXTAUTH_KEY_SECRET, one replica after the other, as docs/operations.md describes it."""

import asyncio
import re

from scripts.stack import Stack
from tests.e2e.conftest import ROOT, Launch, no_call_failed
from tests.e2e.edge import FREE, Edge
from tests.e2e.test_failures import envoy_finds_all_healthy
from tests.support.environ import INHERITED


async def masks(edge: Edge) -> list[str]:
    """What stands for the free tier's key, at each replica."""
    pages = [await edge.fetch(replica.admin, "/rules") for replica in edge.stack.ports.extauth]
    return [match[0] for page in pages if (match := re.search(r"fr\*\*\*~[0-9a-f]{6}", page))]


async def hashes(edge: Edge) -> set[str]:
    """The hashes of the rules that the replicas have."""
    pages = [await edge.fetch(replica.admin, "/metrics") for replica in edge.stack.ports.extauth]
    return {match[0] for page in pages if (match := re.search(r"extauth_config_info\{.*\}", page))}


async def test_a_rolling_rotation_fails_no_call_and_admits_each_limit_at_most_once_more(launch: Launch) -> None:
    edge = launch(env={"EXTAUTH_KEY_SECRET": "old"})
    new = Stack(
        ROOT,
        edge.stack.state,
        ports=edge.stack.ports,
        env={
            **INHERITED,
            "EXTAUTH_CONFIG": str(edge.config.parent),
            "EXTAUTH_REDIS_TIMEOUT": "10",
            "EXTAUTH_KEY_SECRET": "new",
        },
        prometheus=False,
        ratelimit_timeout_s=20,
    )
    try:
        await rotate(edge, new)
    finally:
        new.down()


async def rotate(edge: Edge, new: Stack) -> None:
    """Replace each replica by one of the new stack while requests come in."""
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    old_masks, old_hashes = await masks(edge), await hashes(edge)
    statuses: list[int] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            statuses.extend(await edge.statuses(10, key=FREE))

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_asking())
        for replica in ("extauth-1", "extauth-2"):
            assert await asyncio.to_thread(edge.stack.stop, replica) == 0
            await asyncio.to_thread(new.start, replica)
            await edge.until(envoy_finds_all_healthy(edge), "Envoy finds the replica healthy again")
        done.set()

    await no_call_failed(edge)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) == 10, "a fresh allowance under the new names, and no more"
    with edge.redis() as store:
        names = list(store.scan_iter("extauth:{*}:*"))
        assert len(names) == 2, "the old counter stays until it expires"
        assert all(store.pttl(name) > 0 for name in names)
    assert len(set(old_masks)) == len(set(await masks(edge))) == 1
    assert set(old_masks).isdisjoint(await masks(edge)), "masked values change with the secret"
    assert await hashes(edge) == old_hashes, "the rules do not"
