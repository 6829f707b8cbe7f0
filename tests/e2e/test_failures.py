"""Parts that go away, and come back. On the shipped timeouts but where a test counts exactly."""

import asyncio
import signal

import pytest

from tests.e2e.conftest import Launch, no_call_failed
from tests.e2e.edge import FREE, Edge


async def test_counting_resumes_after_the_store_was_restarted(launch: Launch) -> None:
    edge = launch(patient=False)
    assert await edge.statuses(3) == [200, 200, 429]

    edge.stack.stop("redis", signal.SIGKILL)
    assert await edge.statuses(4, key=FREE) == [200] * 4  # EXTAUTH_ON_STORE_FAILURE=allow
    assert sum(await edge.metric("extauth_store_failure_decisions_total", outcome="allow")) >= 4
    for replica in edge.stack.ports.extauth:
        await edge.fetch(replica.admin, "/readyz")  # no reason to take a replica out

    edge.stack.start("redis")

    async def both_count_again() -> bool:
        await edge.get_many(4, key=FREE)
        return await edge.metric("extauth_store_up") == [1, 1]

    await edge.until(both_count_again, "both replicas reach the store")
    with edge.redis() as store:
        store.flushall()
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]


async def test_a_store_that_is_gone_can_close_the_door(launch: Launch) -> None:
    edge = launch(patient=False, env={"EXTAUTH_ON_STORE_FAILURE": "deny"})
    edge.stack.stop("redis", signal.SIGKILL)

    assert await edge.statuses(4, key=FREE) == [429] * 4
    assert sum(await edge.metric("extauth_store_failure_decisions_total", outcome="deny")) == 4


async def test_without_any_extauth_requests_pass(launch: Launch) -> None:
    edge = launch(patient=False)
    for name in ("extauth-1", "extauth-2"):
        assert edge.stack.stop(name) == 0

    assert await edge.statuses(4) == [200] * 4
    assert (await edge.envoy_ratelimit())["failure_mode_allowed"] == 4


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_requests_are_counted_on_while_a_replica_goes(launch: Launch, sig: signal.Signals) -> None:
    edge = launch()
    sent = 0

    async def keep_asking() -> None:
        nonlocal sent
        while not stopped.is_set():
            answer = await edge.get(key=FREE)
            sent += 1
            assert answer.status == (200 if sent <= 10 else 429)

    async def another_ten() -> bool:
        return sent >= seen + 10

    stopped = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_asking())
        seen = sent
        await edge.until(another_ten, "requests are answered")
        code = await asyncio.to_thread(edge.stack.stop, "extauth-1", sig)
        seen = sent
        await edge.until(another_ten, "requests are answered by the replica that is left")
        stopped.set()

    assert code == (0 if sig == signal.SIGTERM else -signal.SIGKILL)
    if sig == signal.SIGTERM:
        await no_call_failed(edge)


async def test_a_replica_that_comes_back_is_used_again(launch: Launch) -> None:
    edge = launch()
    edge.stack.restart("extauth-2")

    async def used() -> bool:
        await edge.get(key="premium-tier-key")
        return all(count > 0 for count in await edge.metric("http_requests_total"))

    await edge.until(used, "both replicas are asked")
    await no_call_failed(edge)


async def test_what_a_replica_counted_is_known_to_the_other(launch: Launch) -> None:
    edge: Edge = launch()
    edge.stack.stop("extauth-2")
    assert await edge.statuses(6, key=FREE) == [200] * 6
    edge.stack.start("extauth-2")
    edge.stack.stop("extauth-1")
    assert await edge.statuses(5, key=FREE) == [200] * 4 + [429]
    await no_call_failed(edge)
