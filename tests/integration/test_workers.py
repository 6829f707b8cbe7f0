"""`extauth serve` with several workers, as processes."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth.cli import app
from extauth.limiter.counter_names import SHARDS
from tests.integration.worker_service import children, connected, connections_by_worker, events, page, samples, spread
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import Peer
from tests.support.process import Served, served_with
from tests.support.stores import Store
from tests.support.wait import until_async

CONFIG = """
domain: d
descriptors:
  - {key: ten, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: wide, rate_limit: {unit: year, requests_per_unit: 1000000}}
"""
Serve = Callable[..., Served]


@pytest.fixture
def serve(own_store: Store) -> Iterator[Serve]:
    with served_with(own_store, CONFIG) as start:

        def with_workers(**settings: str) -> Served:
            served = start(EXTAUTH_WORKERS="2", EXTAUTH_ENGINE="h2", EXTAUTH_LOG_FORMAT="json", **settings)
            served.until_ready()
            return served

        yield with_workers


async def test_connections_are_spread_and_all_that_is_shown_is_of_all_workers(serve: Serve) -> None:
    served = serve()
    none = await spread(served)
    for connections, of_each in ((2, [1, 1]), (4, [2, 2]), (8, [4, 4])):
        async with connected(served, connections) as client:
            assert [now - before for now, before in zip(await spread(served), none, strict=True)] == of_each
            assert (await samples(served))["extauth_connections"] == {(): connections}
            if connections == 4:
                codes = await client.ask_all(5, "ten")
                assert sorted(codes) == [OK] * 10 + [OVER_LIMIT] * 10
                assert await client.ask_all(25) == [OK] * 100
                shown = await samples(served)
        await until_async(lambda: _count(served, 0), every_s=0.05)
    assert sum(shown["extauth_decisions_total"].values()) == 120
    assert shown["http_requests_total"] == {("none", "allowed", "none"): 110, ("none", "denied", "none"): 10}
    assert shown["extauth_rule_calls_total"] == {("d", "ten"): 20, ("d", "wide"): 100}
    assert shown["extauth_rule_over_limit_total"] == {("d", "ten"): 10, ("d", "wide"): 0}
    assert shown["extauth_decision_duration_seconds_count"] == {(): 120}
    assert shown["extauth_batch_size_sum"] == {(): 120}
    assert shown["extauth_max_connections"] == {(): 1024}
    top = await page(served, "/top")
    (rule,) = [rule for rule in top["replica"]["rules"] if rule["rule"] == "ten"]
    assert [(caller["caller"], caller["calls"]) for caller in rule["denied"]] == [("ten=x", 10)]
    assert [(caller["caller"], caller["calls"]) for caller in rule["busiest"]] == [("ten=x", 20)]
    assert (top["replicas"], top["unknown"], top["all"]) == (1, 0, top["replica"])
    ready = await page(served, "/readyz")
    assert (ready["store"], ready["breaker"], ready["replicas"]) == ("up", "closed", 1)
    assert (ready["workers"], ready["workers_ready"]) == (2, 2)
    await until_async(lambda: _history(served, {"wide": 100, "ten": 20}), every_s=0.1)


async def _count(served: Served, connections: int) -> bool:
    return (await samples(served))["extauth_connections"] == {(): connections}


async def _history(served: Served, calls: dict[str, int]) -> bool:
    """Whether the live page shows so many calls of the rules, in its table and in its history."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.admin_port)
    writer.write(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = await reader.readuntil(b"\n\n")
    writer.close()
    data = b"".join(re.findall(rb"^(?:data: )?(.*)$", re.sub(rb"\r\n[0-9a-f]+\r\n", b"", text), re.MULTILINE))
    shown = json.loads(data[data.index(b'{"at"') : data.rindex(b"}") + 1])
    assert (shown["service"]["workers"], shown["service"]["workers_ready"]) == (2, 2)
    history = {each["rule"]: sum(each["allowed"]) + sum(each["denied"]) for each in shown["history"]["rules"]}
    return history == calls and {row["rule"]: row["calls"] for row in shown["rules"]["rows"]} == calls


async def test_a_worker_that_is_killed_is_started_again_while_the_other_answers(serve: Serve) -> None:
    served = serve()
    async with connected(served, 2) as client:
        assert await client.ask_all(10) == [OK] * 20
        await samples(served)
        before = children(served.process.pid)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        gone = [asyncio.create_task(peer.gone()) for peer in client.peers]
        done, _ = await asyncio.wait(gone, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        (lost,) = [peer for peer, task in zip(client.peers, gone, strict=True) if task in done]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        (alive,) = [peer for peer in client.peers if peer is not lost]
        answered = 0
        while not events(served, "worker_started"):
            assert await client.ask(alive) == OK
            assert (await asyncio.to_thread(served.get, "/readyz"))[0] == 200
            answered += 1
        assert answered > 0
        after = children(served.process.pid)
        assert (len(after), killed in after, len(after & before)) == (2, False, 1)
        assert sum((await samples(served))["extauth_decisions_total"].values()) == 20 + answered, "no count is lost"
        async with connected(served, 1) as anew:
            assert await anew.ask_all(1) == [OK]
            assert connections_by_worker(served, after) == [1, 1], "the new worker has it"
    (ended,) = events(served, "worker_ended")
    (started,) = events(served, "worker_started")
    assert (ended["signal"], ended["worker"]) == ("SIGKILL", started["worker"])


async def test_a_reload_reaches_all_workers_and_those_that_start_later(serve: Serve) -> None:
    served = serve()
    config = served.folder / "api.yaml"
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(10, "ten")) == [OK] * 10 + [OVER_LIMIT] * 10
        config.write_text(CONFIG.replace("requests_per_unit: 10}", "requests_per_unit: 14}"))
        await until_async(lambda: events(served, "config_reloaded"), served.log.read_text)
        assert sorted(await client.ask_all(10, "ten", "y")) == [OK] * 14 + [OVER_LIMIT] * 6
        config.write_text("domain: d\ndescripters: []\n")
        await until_async(lambda: events(served, "config_rejected"), served.log.read_text)
        os.kill(min(children(served.process.pid)), signal.SIGKILL)
        await until_async(lambda: events(served, "worker_started"), served.log.read_text)
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(10, "ten", "z")) == [OK] * 14 + [OVER_LIMIT] * 6, "by the rules in force"
    assert (await samples(served))["extauth_config_reloads_total"] == {("ok",): 1, ("error",): 1}

    os.kill(min(children(served.process.pid)), signal.SIGKILL)
    config.write_text(CONFIG.replace("requests_per_unit: 10}", "requests_per_unit: 6}"))  # while the worker begins
    await until_async(lambda: len(events(served, "config_reloaded")) == 2, served.log.read_text)
    await until_async(lambda: len(events(served, "worker_started")) == 2, served.log.read_text)
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(10, "ten", "0")) == [OK] * 6 + [OVER_LIMIT] * 14
    lines = events(served, "config_reloaded", "config_rejected", "worker_has_other_rules")
    assert [line["event"] for line in lines] == ["config_reloaded", "config_rejected", "config_reloaded"]


async def test_a_reload_that_makes_a_key_secret_hides_its_values_in_all_that_is_shown(serve: Serve) -> None:
    served = serve()
    in_clear = CONFIG + "  - {key: customer, value_to_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}\n"
    (served.folder / "api.yaml").write_text(in_clear)
    await until_async(lambda: events(served, "config_reloaded"), served.log.read_text)
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(2, "customer", "acme")) == [OK] + [OVER_LIMIT] * 3
        for shown in ("/metrics", "/top"):
            assert "acme" in (await asyncio.to_thread(served.get, shown))[1]
        (served.folder / "api.yaml").write_text(in_clear.replace("domain: d", "domain: d\nsecret: [customer]"))
        await until_async(lambda: len(events(served, "config_reloaded")) == 2, served.log.read_text)
        for shown in ("/metrics", "/top"):
            assert "acme" not in (await asyncio.to_thread(served.get, shown))[1]
        assert await client.ask_all(1, "customer", "acme") == [OVER_LIMIT] * 2
        for shown in ("/metrics", "/top"):
            text = (await asyncio.to_thread(served.get, shown))[1]
            assert ("acme" in text, "customer" in text) == (False, True)
    assert len(events(served, "masking_changed")) == 1


async def test_all_drain_as_one_and_answer_what_they_got(serve: Serve) -> None:
    served = serve(EXTAUTH_DRAIN_DELAY="1")
    async with connected(served, 4) as client:
        codes: list[int] = []

        async def go_on(peer: Peer) -> None:
            while not peer.goaways:
                codes.append(await client.ask(peer))

        asking = [asyncio.create_task(go_on(peer)) for peer in client.peers]
        await until_async(lambda: len(codes) > 40)
        for pid in (served.process.pid, *children(served.process.pid)):  # as systemd does
            os.kill(pid, signal.SIGTERM)
        await until_async(lambda: _status(served, "draining"), served.log.read_text, every_s=0.02)
        before = len(codes)
        await until_async(lambda: len(codes) > before + 8, "calls are answered meanwhile")
        await asyncio.wait_for(asyncio.gather(*asking), 20)
        assert set(codes) == {OK}
    assert await asyncio.to_thread(served.process.wait, 20) == 0
    assert [line["event"] for line in served.lines()][-2:] == ["draining", "stopped"]


async def test_a_worker_that_stands_still_gets_no_connection_and_is_not_waited_for(serve: Serve) -> None:
    served = serve()
    stopped, other = sorted(children(served.process.pid))
    os.kill(stopped, signal.SIGSTOP)
    try:
        await samples(served)  # which finds that it does not answer
        async with connected(served, 3) as client:
            assert await client.ask_all(2) == [OK] * 6
            assert connections_by_worker(served, [stopped, other]) == [0, 3]
            assert sum((await samples(served))["extauth_decisions_total"].values()) == 6
        assert (await page(served, "/top"))["replicas"] == 1
    finally:
        os.kill(stopped, signal.SIGCONT)

    async def gets_one() -> bool:
        async with connected(served, 1):
            return connections_by_worker(served, [stopped, other]) == [1, 0]

    await until_async(gets_one, "it gets connections again", every_s=0.1)


async def _status(served: Served, status: str) -> bool:
    return str((await page(served, "/readyz"))["status"]) == status


async def test_a_parent_that_is_killed_takes_its_workers_with_it(serve: Serve) -> None:
    served = serve()
    pids = children(served.process.pid)
    assert len(pids) == 2
    async with connected(served, 2) as client:
        served.process.kill()
        for peer in client.peers:
            await peer.gone()
        await until_async(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids))


async def test_without_the_store_the_workers_together_admit_what_is_allowed(serve: Serve, own_store: Store) -> None:
    served = serve()
    own_store.stop()
    await until_async(lambda: _breaker_open(served), every_s=0.05)
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(10, "ten")) == [OK] * 10 + [OVER_LIMIT] * 10
    assert (await samples(served))["extauth_local_share"] == {(): 1}


async def test_each_worker_counts_as_a_replica_for_shares_and_its_parent_for_people(
    serve: Serve, own_store: Store
) -> None:
    both = [serve(EXTAUTH_LOCAL_SHARE="auto", EXTAUTH_ADVERTISE=f"127.0.0.1:{port}") for port in (1, 2)]
    for served in both:
        await until_async(lambda served=served: _knows_two(served), every_s=0.1)  # type: ignore[misc]
        async with connected(served, 2) as client:
            await client.ask_all(10, "ten", "a")
    served = both[0]
    await until_async(lambda: _top_of_two(served, 40), every_s=0.1)
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["top", "--json"], env={"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_CONFIG": "none"}
    )
    assert json.loads(ran.stdout)["replicas"] == 2
    own_store.stop()
    await until_async(lambda: _breaker_open(served), every_s=0.05)
    assert (await samples(served))["extauth_local_share"] == {(): 0.5}
    async with connected(served, 2) as client:
        assert sorted(await client.ask_all(5, "ten", "b")) == [OK] * 4 + [OVER_LIMIT] * 6, "a quarter of ten for each"


async def test_replicas_with_another_number_of_shards_are_shown(serve: Serve) -> None:
    first, second = serve(), serve(EXTAUTH_SHARDS="32")
    await until_async(lambda: _differs(first, [32]), every_s=0.1)
    await until_async(lambda: _differs(second, [SHARDS]), every_s=0.1)


async def _differs(served: Served, others: list[int]) -> bool:
    return bool((await page(served, "/readyz")).get("other_shards") == others)


async def _knows_two(served: Served) -> bool:
    """Whether it knows another replica with both of its workers, from which it has the shares."""
    return bool((await page(served, "/readyz"))["replicas"] == 2)


async def _top_of_two(served: Served, calls: int) -> bool:
    top = await page(served, "/top")
    busiest = {each["caller"]: each["calls"] for rule in top["all"]["rules"] for each in rule["busiest"]}
    return (top["replicas"], busiest) == (2, {"ten=a": calls})


async def _breaker_open(served: Served) -> bool:
    ready = await page(served, "/readyz")
    return str(ready["breaker"]) == "open" and str(ready["store"]).startswith("down: ") and "of 2" not in ready["store"]


@pytest.mark.parametrize("setting", ["EXTAUTH_REDIS_URL=memory:", "EXTAUTH_ENGINE=grpcio"])
def test_1_what_cannot_have_workers_is_refused(short_path: Path, setting: str) -> None:
    (short_path / "d.yaml").write_text("domain: d\n")
    name, value = setting.split("=")
    served = Served(short_path, short_path / "d.yaml", settings={"EXTAUTH_WORKERS": "2", name: value})
    try:
        assert served.process.wait(30) == 1
        assert served.log.read_text().startswith(f"EXTAUTH_WORKERS=2 cannot be used with {setting}")
    finally:
        served.stop()
