"""Parts that go away, and come back. On the shipped timeouts but where a test counts exactly."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.e2e.conftest import Launch, no_call_failed
from tests.e2e.edge import FREE, PREMIUM, Edge


def envoy_finds_all_healthy(edge: Edge) -> Callable[[], Awaitable[bool]]:
    async def healthy() -> bool:
        rows = await asyncio.to_thread(edge.stack.status)
        return next(state for name, state, _ in rows if name == "envoy").startswith("ready")

    return healthy


async def test_counting_resumes_after_the_store_was_restarted(launch: Launch) -> None:
    edge = launch(patient=False, env={"EXTAUTH_ON_STORE_FAILURE": "allow"})
    assert await edge.statuses(3) == [200, 200, 429]

    edge.stack.stop("redis", signal.SIGKILL)
    assert await edge.statuses(4, key=FREE) == [200] * 4
    assert sum(await edge.metric("extauth_store_failure_decisions_total", outcome="allow")) >= 4
    for replica in edge.stack.ports.extauth:
        await edge.fetch(replica.admin, "/readyz")  # no reason to take a replica out

    edge.stack.start("redis")

    async def both_count_again() -> bool:
        await edge.get_many(4, key=FREE)
        return await edge.metric("extauth_store_up") == [1, 1]

    await edge.until(both_count_again, "both replicas reach the store")
    assert await edge.statuses(21, key=PREMIUM) == [200] * 20 + [429]


async def test_denials_are_repeated_from_memory_for_a_second_at_most(launch: Launch) -> None:
    edge = launch()
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    assert await edge.statuses(20, key=FREE) == [429] * 20
    assert sum(await edge.metric("extauth_denial_cache_hits_total")) >= 10
    with edge.redis() as store:
        store.flushall()

    async def admitted() -> bool:
        return await edge.statuses(1, key=FREE) == [200]

    await edge.until(admitted, "the flush is seen", within_s=5)
    await no_call_failed(edge)


async def test_a_store_that_is_gone_can_close_the_door(launch: Launch) -> None:
    edge = launch(patient=False, env={"EXTAUTH_ON_STORE_FAILURE": "deny"})
    edge.stack.stop("redis", signal.SIGKILL)

    assert await edge.statuses(4, key=FREE) == [429] * 4
    assert sum(await edge.metric("extauth_store_failure_decisions_total", outcome="deny")) == 4


async def test_a_store_that_hangs_can_close_the_door_too(launch: Launch) -> None:
    """Each call is answered before Envoy's own timeout, on the timeouts as shipped."""
    edge = launch(patient=False, env={"EXTAUTH_ON_STORE_FAILURE": "deny", "EXTAUTH_DENIAL_CACHE": "0"})
    edge.stack.process("redis").send(signal.SIGSTOP)
    try:
        statuses = await edge.statuses(400, key=FREE, at_once=40)
    finally:
        edge.stack.process("redis").send(signal.SIGCONT)
    late = await edge.envoy_stat("cluster.extauth.upstream_rq_timeout")
    assert statuses.count(429) >= 400 - late
    assert late < 40, "a machine that stalls explains some, and no more"
    assert statuses.count(200) == 400 - statuses.count(429)


async def test_a_store_slower_than_envoys_timeout_is_no_failure(launch: Launch) -> None:
    """EXTAUTH_REDIS_TIMEOUT is the connection's, and may be longer than what Envoy gives a call."""
    edge = launch(patient=False, env={"EXTAUTH_ON_STORE_FAILURE": "deny", "EXTAUTH_REDIS_TIMEOUT": "30"})
    assert await edge.statuses(1, key=FREE) == [200]
    edge.stack.process("redis").send(signal.SIGSTOP)
    try:
        assert await edge.statuses(4, key=FREE, at_once=4) == [429] * 4
        assert sum(await edge.metric("extauth_shed_calls_total", reason="timeout")) == 4
        assert sum(await edge.metric("extauth_store_errors_total")) == 0
    finally:
        edge.stack.process("redis").send(signal.SIGCONT)

    async def allowed() -> bool:
        return await edge.statuses(1, key=PREMIUM) == [200]

    await edge.until(allowed, "the store is asked again")
    assert sum(await edge.metric("extauth_store_errors_total")) == 0


async def test_without_any_extauth_requests_pass(launch: Launch) -> None:
    edge = launch(patient=False)
    for name in ("extauth-1", "extauth-2"):
        assert edge.stack.stop(name) == 0

    assert await edge.statuses(4) == [200] * 4
    # The alerts tell requests that passed from those that were refused by the difference of the two.
    counts = await edge.envoy_ratelimit()
    assert (counts["error"], counts["failure_mode_allowed"]) == (4, 4)


WORKERS = os.cpu_count() or 1  # of Envoy, each with a connection of its own to each replica


@pytest.mark.parametrize(("sig", "lost"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1 + WORKERS)])
async def test_counting_goes_on_while_a_replica_goes(launch: Launch, sig: signal.Signals, lost: int) -> None:
    """At most the call in flight is lost, and one a worker that has not seen the end; with an orderly end not one."""
    edge = launch()
    statuses: list[int] = []
    done = asyncio.Event()

    async def keep_asking() -> None:
        while not done.is_set():
            statuses.append((await edge.get(key=FREE)).status)

    async def more_answers(than: int) -> None:
        async def come() -> bool:
            return len(statuses) > than + 20

        await edge.until(come, "requests are answered")

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_asking())
        await more_answers(0)
        code = await asyncio.to_thread(edge.stack.stop, "extauth-1", sig)
        await more_answers(len(statuses))
        done.set()

    assert code == (0 if sig == signal.SIGTERM else -signal.SIGKILL)
    uncounted = (await edge.envoy_ratelimit()).get("failure_mode_allowed", 0)
    assert uncounted <= lost
    assert 10 <= statuses.count(200) <= 10 + uncounted
    assert set(statuses) == {200, 429}


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
    await edge.until(envoy_finds_all_healthy(edge), "Envoy finds the replica healthy again")
    edge.stack.stop("extauth-1")
    assert await edge.statuses(5, key=FREE) == [200] * 4 + [429]
    await no_call_failed(edge)
