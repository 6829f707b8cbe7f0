"""A service that remembers denials, on a real cluster: what is repeated without asking a master, and what never is."""

import asyncio
import signal

import pytest

from tests.integration.cluster_load import inspect, slot
from tests.integration.store_service import Serve, Service
from tests.support.cluster import PARTLY, Node, RealCluster, StartCluster
from tests.support.codes import OK, OVER_LIMIT
from tests.support.wait import until_async

REMEMBER = {"EXTAUTH_REMEMBER_DENIALS": "true"}
CANDIDATES = [f"v{i}" for i in range(200)]


def values_at(cluster: RealCluster, node: Node, key: str) -> list[str]:
    """Callers whose counters of a key lie on that master."""
    return [value for value in CANDIDATES if cluster.owner(slot(value, key)) is node]


async def from_memory(service: Service) -> float:
    return await service.metric('extauth_decisions_total{source="denial_cache"}')


async def ask_again(service: Service, key: str, value: str, times: int) -> list[int | str]:
    return [await service.ask(key, value=value) for _ in range(times)]


async def test_who_is_used_up_is_denied_without_asking_his_master(cluster: RealCluster, serve: Serve) -> None:
    service = serve(cluster.url, **REMEMBER)
    await service.until_store("up")
    used_up = [values_at(cluster, node, "few")[0] for node in cluster.masters]
    for value in used_up:
        assert await ask_again(service, "few", value, 13) == [OK] * 3 + [OVER_LIMIT] * 10
    assert [await inspect(service, value, "few") for value in used_up] == [4] * 3, "one denial asked, and counted"
    assert await from_memory(service) == 9 * 3

    for node, value in zip(cluster.masters, used_up, strict=True):
        beside = next(each for each in values_at(cluster, node, "few")[1:] if slot(each, "few") == slot(value, "few"))
        for other in (beside, values_at(cluster, node, "few")[-1]):
            assert await ask_again(service, "few", other, 3) == [OK] * 3
        assert await service.ask("wide", value=value) == OK


async def test_who_was_denied_from_memory_is_admitted_once_the_window_has_ended(
    cluster: RealCluster, serve: Serve
) -> None:
    service = serve(cluster.url, **REMEMBER)
    await service.until_store("up")

    async def look(node: Node) -> None:
        """Ask through some windows: by the clock of the master, who has had nothing in this one must be admitted."""
        (value, *_) = values_at(cluster, node, "brief")
        taken_in, rolled = -1, 0
        while rolled < 2:
            before = await second(node)
            code = await service.ask("brief", value=value)
            after = await second(node)
            if before == after:
                assert code == (OVER_LIMIT if taken_in == before else OK), (taken_in, before)
                rolled += code == OK
            if code == OK:
                taken_in = after  # of a call from one window to the next, it may be either

    await asyncio.gather(*map(look, cluster.masters))
    assert await from_memory(service) > 0


async def second(node: Node) -> int:
    """A master's clock."""
    return int((await asyncio.to_thread(node.command, "TIME"))[0])


@pytest.mark.timeout(60)
async def test_after_a_fail_over_nobody_is_denied_for_what_was_remembered(
    start_cluster: StartCluster, serve: Serve
) -> None:
    cluster = await asyncio.to_thread(start_cluster, options=PARTLY)
    service = serve(cluster.url, **REMEMBER)  # it denies what is not counted
    await service.until_store("up")
    dead, alive, _ = cluster.masters
    used_up, with_room, new, first, *_ = values_at(cluster, dead, "few")
    elsewhere = values_at(cluster, alive, "few")[0]
    for value in (used_up, elsewhere):
        assert await ask_again(service, "few", value, 6) == [OK] * 3 + [OVER_LIMIT] * 3
    assert await service.ask("few", value=with_room) == OK
    assert await asyncio.to_thread(dead.command, "WAIT", 1, 10_000) == 1

    cluster.replicas[0].signal(signal.SIGSTOP)  # until all of that was asked which nobody counts
    await asyncio.to_thread(dead.stop, signal.SIGKILL)
    for value in (used_up, with_room, new):
        assert await ask_again(service, "few", value, 2) == [OVER_LIMIT] * 2
    assert await from_memory(service) == 2 + 2 + 2, "of one caller on either master"
    cluster.replicas[0].signal(signal.SIGCONT)
    await asyncio.to_thread(cluster.until_failed_over, cluster.replicas[0], cluster.masters[1:])

    async def is_counted() -> bool:
        return await service.ask("few", value=first) == OK

    await until_async(is_counted)  # the store is up before that: a master that was not tried yet is not away

    assert await ask_again(service, "few", with_room, 3) == [OK] * 2 + [OVER_LIMIT]
    assert await ask_again(service, "few", new, 4) == [OK] * 3 + [OVER_LIMIT]
    for value in (used_up, elsewhere):
        assert await ask_again(service, "few", value, 2) == [OVER_LIMIT] * 2
        assert await inspect(service, value, "few") == 4


@pytest.mark.timeout(60)
async def test_nothing_is_learnt_from_hits_that_another_master_may_give_back(
    cluster: RealCluster, serve: Serve
) -> None:
    """Nothing is ever learnt from `logged`, and so from a call that takes from both: only from that of `kept` alone."""
    service = serve(cluster.url, EXTAUTH_DENIAL_CACHE="60", EXTAUTH_REDIS_TIMEOUT="20", **REMEMBER)
    await service.until_store("up")
    value = next(v for v in CANDIDATES if cluster.owner(slot(v, "kept")) is not cluster.owner(slot(v, "logged")))
    assert await service.ask("logged", value=value) == OK
    silent = cluster.owner(slot(value, "logged"))

    async def holds(hits: int) -> bool:
        return await inspect(service, value, "kept") == hits

    silent.signal(signal.SIGSTOP)
    try:
        both = asyncio.create_task(service.ask("kept", also="logged", value=value))
        await until_async(lambda: holds(1), every_s=0.05)
        assert await service.ask("kept", value=value) == OVER_LIMIT, "the hit is held until the other master answers"
    finally:
        silent.signal(signal.SIGCONT)
    assert await both == OVER_LIMIT
    await until_async(lambda: holds(0), every_s=0.05)
    assert await ask_again(service, "kept", value, 3) == [OK] + [OVER_LIMIT] * 2
