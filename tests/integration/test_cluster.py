"""A service whose counters lie in a real Redis Cluster: deaths, fail-overs and moves under load, and the commands."""

import asyncio
import json
import re
import signal
import time
from pathlib import Path

import pytest
import trustme

from extauth.cli import app
from extauth.counters.redis.cluster.node import RIGHTS as CLUSTER_RIGHTS
from extauth.counters.redis.counters import RIGHTS
from tests.integration.cluster_load import RUN, VALUES, inspect, load, slot, until_it_counts_at
from tests.integration.store_service import Serve
from tests.support.cluster import PARTLY, RealCluster, StartCluster
from tests.support.codes import OK, OVER_LIMIT
from tests.support.wait import until_async

BACK_WITHIN_S = 1.0


def server_files(folder: Path) -> dict[str, Path]:
    """The files of a server's certificate, by the names of its options."""
    authority, certificate = trustme.CA(), folder / "cert.pem"
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    return {"cert": certificate, "key": folder / "key.pem", "ca-cert": folder / "ca.pem"}


async def test_calls_are_counted_on_all_masters_and_the_commands_find_them(cluster: RealCluster, serve: Serve) -> None:
    service = serve(cluster.url)
    await service.until_store("up")
    before = [node.runs() for node in cluster.masters]
    assert [await service.ask("wide", value=value) for value in VALUES] == [OK] * len(VALUES)
    assert all(node.runs() > count for node, count in zip(cluster.masters, before, strict=True))
    assert [await service.ask("tight") for _ in range(2)] == [OK, OVER_LIMIT]

    config = service.served.folder / "d.yaml"
    environ = {"EXTAUTH_REDIS_URL": cluster.url, "EXTAUTH_CONFIG": str(config)}
    commands = {
        ("inspect", "d", "tight=v"): "0 left",
        ("explain", "d", "tight=v"): "tight",
        ("check", "--address", service.served.address, "d", "tight=v"): "OVER_LIMIT",
        ("reset", "--yes", "d", "tight=v"): "deleted 1 counter",
    }
    for argv, said in commands.items():
        result = await asyncio.to_thread(RUN.invoke, app, argv, env=environ)
        assert said in result.output, (argv, result.output)
    assert await service.ask("tight") == OK


async def test_a_request_on_two_masters_is_admitted_by_both_and_takes_nothing_where_one_denies(
    cluster: RealCluster, serve: Serve
) -> None:
    service = serve(cluster.url)
    await service.until_store("up")
    value = next(v for v in VALUES if cluster.owner(slot(v, "deep")) is not cluster.owner(slot(v, "tight")))
    assert [await service.ask("deep", also="tight", value=value) for _ in range(9)] == [OK] + [OVER_LIMIT] * 8

    async def took_one() -> bool:
        return await inspect(service, value, "deep") == 1

    await until_async(took_one, every_s=0.05)


async def test_replicas_know_of_each_other(cluster: RealCluster, serve: Serve) -> None:
    both = [serve(cluster.url) for _ in range(2)]

    async def known() -> bool:
        return all([json.loads(await each.get("/readyz"))["replicas"] == 2 for each in both])

    for each in both:
        await each.until_store("up")
    await until_async(known, every_s=0.05)
    told = await asyncio.to_thread(RUN.invoke, app, ["top", "--once"], env={"EXTAUTH_REDIS_URL": cluster.url})
    assert told.output.startswith("2 replicas, "), told.output


@pytest.mark.timeout(60)
async def test_when_a_master_dies_the_others_count_on_and_its_replica_counts_within_a_second_of_the_election(
    start_cluster: StartCluster, serve: Serve
) -> None:
    cluster = await asyncio.to_thread(start_cluster, options=PARTLY)
    service = serve(cluster.url, EXTAUTH_ON_STORE_FAILURE="local")
    await service.until_store("up")
    dead, *alive = cluster.masters
    async with load(service, next(v for v in VALUES if cluster.owner(slot(v, "tight")) is dead)):
        await asyncio.to_thread(dead.stop, signal.SIGKILL)
        await service.until_store(f"down: 1 of 3 masters: .*{re.escape(dead.address)}.*")
        for node in alive:
            await until_it_counts_at(node)
        elected = await asyncio.to_thread(cluster.until_failed_over, cluster.replicas[0], alive)
        await until_it_counts_at(cluster.replicas[0])
        await service.until_store("up")
        assert time.monotonic() - elected <= BACK_WITHIN_S
    assert service.events().count("store_down") == 1


@pytest.mark.timeout(60)
async def test_while_a_master_is_silent_calls_to_the_others_wait_for_none_to_it(
    cluster: RealCluster, serve: Serve
) -> None:
    service = serve(cluster.url, EXTAUTH_REDIS_TIMEOUT="20")
    await service.until_store("up")
    silent = cluster.owner(slot(VALUES[0]))
    others = [value for value in VALUES if cluster.owner(slot(value)) is not silent]
    silent.signal(signal.SIGSTOP)
    try:
        waiting = asyncio.create_task(service.ask("wide", value=VALUES[0]))
        for _ in range(3):
            assert await asyncio.gather(*(service.ask("wide", 5, value=value) for value in others)) == [OK] * len(
                others
            )
        assert not waiting.done()
    finally:
        silent.signal(signal.SIGCONT)
    assert await waiting == OK


@pytest.mark.timeout(60)
async def test_with_half_of_the_cluster_gone_calls_are_answered_and_counted_again_when_it_is_back(
    start_cluster: StartCluster, serve: Serve
) -> None:
    cluster = await asyncio.to_thread(start_cluster, replicas=False)
    service = serve(cluster.url, EXTAUTH_ON_STORE_FAILURE="local")
    await service.until_store("up")
    left, *gone = cluster.masters
    async with load(service, next(v for v in VALUES if cluster.owner(slot(v, "tight")) is left)):
        for node in gone:
            await asyncio.to_thread(node.stop, signal.SIGKILL)
        await service.until_store(
            f"down: 3 of 3 masters: .*{re.escape(left.address)} says that its cluster is down: .*"
        )
        for node in gone:
            await asyncio.to_thread(node.start)
        await service.until_store("up")
        for node in cluster.masters:
            await until_it_counts_at(node)


@pytest.mark.timeout(60)
async def test_a_slot_that_moves_under_load_loses_no_hit(cluster: RealCluster, serve: Serve) -> None:
    service = serve(cluster.url)
    await service.until_store("up")
    moving = slot(VALUES[0])
    source = cluster.owner(moving)
    target = next(node for node in cluster.masters if node is not source)
    try:
        async with load(service, next(f"t{i}" for i in range(1000) if slot(f"t{i}", "tight") == moving)) as under:
            await asyncio.to_thread(cluster.begin_to_move, moving, source, target)
            await until_it_counts_at(source)
            while await asyncio.to_thread(cluster.move_keys, moving, source, target, 1):
                await until_it_counts_at(target)
            await asyncio.to_thread(cluster.finish_move, moving, source, target)
            await until_it_counts_at(target)
        assert await service.store() == "up"
        for value in VALUES:
            assert await inspect(service, value) == under.by_value[value]
        assert "store_down" not in service.events()
    finally:
        await asyncio.to_thread(cluster.move_back, moving, target, source)


async def test_the_user_needs_few_rights(cluster: RealCluster, serve: Serve) -> None:
    rights = (*RIGHTS.split(), *CLUSTER_RIGHTS.split())
    for node in cluster.masters:
        node.command("ACL", "SETUSER", "counter", "on", ">hush", "resetkeys", "~extauth:*", "nocommands", *rights)
    service = serve(f"redis+cluster://counter:hush@{cluster.hosts}")
    await service.until_store("up")
    assert [await service.ask("tight") for _ in range(2)] == [OK, OVER_LIMIT]
    moving = slot("v", "tight")
    source = cluster.owner(moving)
    target = next(node for node in cluster.masters if node is not source)
    try:
        cluster.begin_to_move(moving, source, target)
        cluster.move_keys(moving, source, target)
        assert await service.ask("tight") == OVER_LIMIT
    finally:
        cluster.move_back(moving, target, source)
    refused = serve(f"redis+cluster://counter:hushed@{cluster.hosts}")
    nobody = "no node of the Redis Cluster says where its masters are: Redis at .* refuses the user or the password .*"
    await refused.until_store(f"down: {nobody}")
    assert "hush" not in refused.log.read_text()


async def test_nodes_have_tls_and_a_replica_is_enough_to_find_their_master(
    start_cluster: StartCluster, serve: Serve, tmp_path: Path
) -> None:
    files = server_files(tmp_path)
    tls = tuple(word for name, path in files.items() for word in (f"--tls-{name}-file", str(path)))
    tls += ("--tls-replication", "yes", "--tls-cluster", "yes", "--tls-auth-clients", "no")
    cluster = await asyncio.to_thread(start_cluster, "redis", masters=1, options=tls)
    nodes = f"rediss+cluster://{cluster.replicas[0].address}"
    service = serve(f"{nodes}?ssl_ca_certs={files['ca-cert']}")
    await service.until_store("up")
    assert [await service.ask("tight") for _ in range(2)] == [OK, OVER_LIMIT]
    refused = serve(nodes)
    await refused.until_store("down: no node of the Redis Cluster says where its masters are: .*certificate verify.*")
