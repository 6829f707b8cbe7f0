"""Replicas that share a store, and what they do once it is away."""

import asyncio
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.explain.request import read_descriptor
from extauth.limiter.counter_names import SHARDS
from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE
from extauth.transport.health_client import is_serving
from extauth.transport.tls import Tls, TlsFiles
from tests.integration.store_service import call
from tests.support.codes import OK
from tests.support.ports import free_port
from tests.support.process import Served, served_with
from tests.support.proxy import Proxy
from tests.support.stores import Store
from tests.support.wait import until_async
from tests.transport.test_tls import Authority, write

HEALTH = ("", SERVICE, "ratelimit", "extauth.store")
SERVING, CUT_OFF, STORE_AWAY = (1, 1, 1, 1), (2, 2, 2, 2), (1, 1, 1, 2)
CONFIG = """
domain: d
descriptors:
  - {key: ten, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: one, rate_limit: {unit: year, requests_per_unit: 1}}
"""
Serve = Callable[..., Served]


@pytest.fixture
def serve(own_store: Store) -> Iterator[Serve]:
    with served_with(own_store, CONFIG) as start:
        yield start


def admitted(served: Served, key: str, calls: int = 20) -> int:
    with grpc.insecure_channel(served.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        answers = [RateLimitResponse.parse(ask(call(key), timeout=20)) for _ in range(calls)]
    return sum(answer.overall_code == OK for answer in answers)


def detail(served: Served) -> dict[str, object]:
    found: dict[str, object] = json.loads(served.get("/readyz")[1])
    return found


def metrics(served: Served) -> tuple[float, float, float]:
    """The replicas, whether it is cut off, and its share."""
    series = dict(line.rsplit(" ", 1) for line in served.get("/metrics")[1].splitlines() if not line.startswith("#"))
    seen, cut_off, share = (float(series[f"extauth_{name}"]) for name in ("replicas", "cut_off", "local_share"))
    return seen, cut_off, share


def test_heartbeats_go_on_without_a_file_descriptor_to_spare(own_store: Store, serve: Serve) -> None:
    served = serve()
    served.until(lambda: (detail(served)["status"], detail(served)["replicas"]) == ("ready", 1))
    _, most = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (3, most))
    with redis.Redis.from_url(own_store.url) as store:
        for _ in range(3):
            latest = store.get("extauth:replicas")
            served.until(lambda: store.get("extauth:replicas") != latest)  # noqa: B023 - called at once
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (most, most))
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize(
    ("settings", "ten"),
    [
        ({}, 10),
        ({"EXTAUTH_LOCAL_SHARE": "0.3"}, 3),
        ({"EXTAUTH_LOCAL_SHARE": "auto"}, 5),
        ({"EXTAUTH_LOCAL_SHARE": "auto", "EXTAUTH_REPLICAS": "4"}, 2),
    ],
)
def test_a_replica_admits_its_share(own_store: Store, serve: Serve, settings: dict[str, str], ten: int) -> None:
    both = serve(**settings), serve(**settings)
    for served in both:
        served.until(lambda served=served: detail(served)["replicas"] == 2)  # type: ignore[misc]
    own_store.stop()
    for served in both:
        served.until(lambda served=served: detail(served)["breaker"] == "open")  # type: ignore[misc]
        assert (admitted(served, "ten"), admitted(served, "one")) == (ten, 1)
        seen, cut_off, share = metrics(served)
        assert (seen, cut_off, int(10 * share)) == (2, 0, ten)


def test_replicas_with_other_numbers_of_shards_say_so(serve: Serve) -> None:
    common = {"EXTAUTH_LOG_FORMAT": "json"}
    first = serve(**common, EXTAUTH_ADVERTISE="replica-1.example:8081")
    second = serve(**common, EXTAUTH_SHARDS="32")
    for served in (first, second):
        served.until(lambda served=served: "other_shards" in detail(served))  # type: ignore[misc]
    assert [detail(each)["other_shards"] for each in (first, second)] == [[32], [SHARDS]]
    assert [admitted(each, "ten") for each in (first, second)] == [10, 10], "they count under other names"
    second.process.terminate()
    first.until(lambda: "other_shards" not in detail(first))
    first.process.terminate()
    lines = {line["event"]: line for served in (first, second) for line in served.lines()}
    said = lines["shards_differ"]
    assert (said["own"], said["others"]) == (32, f"replica-1.example:8081 has {SHARDS}")
    assert "EXTAUTH_SHARDS" in str(said["fix"])
    assert lines["shards_agree"]["shards"] == SHARDS


def test_where_the_store_was_never_there_auto_reckons_with_what_is_set(own_store: Store, serve: Serve) -> None:
    own_store.stop()
    alone, one_of_five = serve(EXTAUTH_LOCAL_SHARE="auto"), serve(EXTAUTH_LOCAL_SHARE="auto", EXTAUTH_REPLICAS="5")
    for served in (alone, one_of_five):
        served.until_ready()
    assert (admitted(alone, "ten"), admitted(one_of_five, "ten")) == (10, 2)


def test_one_that_ended_in_order_is_not_counted_any_more(serve: Serve) -> None:
    stays, goes = serve(), serve()
    stays.until(lambda: detail(stays)["replicas"] == 2)
    goes.process.terminate()
    goes.process.wait()
    stays.until(lambda: detail(stays)["replicas"] == 1)


def test_a_heartbeat_has_the_address_to_be_reached_at(own_store: Store, serve: Serve) -> None:
    serve(EXTAUTH_ADVERTISE="replica-1.example:8081").until_ready()
    asker = serve()
    asker.until(lambda: detail(asker)["replicas"] == 2)
    with redis.Redis.from_url(own_store.url) as client:
        held = client.get("extauth:replicas")
    assert isinstance(held, bytes)
    assert sorted(line.split()[2] for line in held.decode().split("\n")) == ["-", "replica-1.example:8081"]


def health(served: Served) -> tuple[int, ...]:
    with grpc.insecure_channel(served.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return tuple(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status for name in HEALTH)


async def until_health(served: Served, statuses: tuple[int, ...]) -> None:
    async def so() -> bool:
        assert served.process.poll() is None, served.log.read_text()
        try:
            return await asyncio.to_thread(health, served) == statuses
        except grpc.RpcError:
            return False

    await until_async(so, served.log.read_text, every_s=0.02)


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
async def test_a_replica_that_is_cut_off_alone_is_not_serving(own_store: Store, serve: Serve, engine: str) -> None:
    at = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    common = {"EXTAUTH_ENGINE": engine, "EXTAUTH_LOG_FORMAT": "json"}
    settings = [common | {"EXTAUTH_GRPC_LISTEN": address, "EXTAUTH_ADVERTISE": address} for address in at]
    async with Proxy(own_store.folder / "p", own_store.socket) as proxy:
        cut, other = serve(**settings[0], EXTAUTH_REDIS_URL=proxy.url), serve(**settings[1])
        for served in (cut, other):
            await until_health(served, SERVING)
            await until_async(lambda served=served: _knows_of_two(served), every_s=0.02)  # type: ignore[misc]
        proxy.refuse()
        await until_health(cut, CUT_OFF)
        assert health(other) == SERVING
        assert (await asyncio.to_thread(cut.get, "/healthz"))[0] == 200
        status, detail = await asyncio.to_thread(cut.get, "/readyz")
        assert (status, json.loads(detail)["cut_off"]) == (200, True)
        assert await asyncio.to_thread(metrics, cut) == (2, 1, 1)
        assert await asyncio.to_thread(admitted, cut, "ten", 1) == 1, "calls are still answered"

        own_store.stop()  # now it is away for both
        await until_health(other, STORE_AWAY)
        await until_health(cut, STORE_AWAY)
        own_store.start()
        await until_health(cut, CUT_OFF)
        await proxy.listen()
        await until_health(cut, SERVING)
        assert (await asyncio.to_thread(metrics, cut))[1] == 0
        cut.process.terminate()
    events = [line["event"] for line in cut.lines()]
    assert [event for event in events if "cut_off" in str(event)] == ["cut_off", "not_cut_off"] * 2


async def _knows_of_two(served: Served) -> bool:
    return (await asyncio.to_thread(detail, served))["replicas"] == 2


async def test_replicas_that_serve_over_tls_ask_each_other_over_it(own_store: Store, serve: Serve) -> None:
    files = TlsFiles(own_store.folder / "cert.pem", own_store.folder / "key.pem", own_store.folder / "ca.pem")
    authority = Authority()
    write(files, authority, authority)
    client = Tls(files).client()
    at = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    common = {
        "EXTAUTH_GRPC_TLS_CERT": str(files.cert),
        "EXTAUTH_GRPC_TLS_KEY": str(files.key),
        "EXTAUTH_GRPC_TLS_CLIENT_CA": str(files.client_ca),
    }
    settings = [common | {"EXTAUTH_GRPC_LISTEN": address, "EXTAUTH_ADVERTISE": address} for address in at]

    async def serving() -> list[bool]:
        return [await is_serving(at[0], name, 10, client) for name in HEALTH]

    async with Proxy(own_store.folder / "p", own_store.socket) as proxy:
        cut, other = serve(**settings[0], EXTAUTH_REDIS_URL=proxy.url), serve(**settings[1])
        for served in (cut, other):
            await asyncio.to_thread(served.until_ready)
            await until_async(lambda served=served: _knows_of_two(served), every_s=0.02)  # type: ignore[misc]
        assert await serving() == [True] * 4
        proxy.refuse()

        async def cut_off() -> bool:
            return await serving() == [False] * 4

        await until_async(cut_off, cut.log.read_text, every_s=0.02)
        assert await is_serving(at[1], "", 10, client)


def ask(served: Served, key: str, value: str, calls: int) -> None:
    with grpc.insecure_channel(served.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        for _ in range(calls):
            ask(encode_request("d", [read_descriptor(f"{key}={value}")]), timeout=20)


def top(served: Served) -> dict[str, Any]:
    status, body = served.get("/top")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def denied(view: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {rule["rule"]: {each["caller"]: each["calls"] for each in rule["denied"]} for rule in view["rules"]}


def test_each_replica_shows_the_callers_of_all(serve: Serve) -> None:
    both = serve(), serve()
    for served, calls in zip(both, (14, 5), strict=True):
        served.until(lambda served=served: detail(served)["replicas"] == 2)  # type: ignore[misc]
        ask(served, "ten", "192.0.2.1", calls)
    ask(both[1], "one", "192.0.2.2", 3)
    own = [{"ten": {"ten=192.0.2.1": 4}}, {"ten": {"ten=192.0.2.1": 5}, "one": {"one=192.0.2.2": 2}}]
    for served, its_own in zip(both, own, strict=True):
        assert denied(top(served)["replica"]) == its_own
        served.until(
            lambda served=served: (  # type: ignore[misc]
                denied(top(served)["all"]) == {"ten": {"ten=192.0.2.1": 9}, "one": {"one=192.0.2.2": 2}}
            )
        )
        view = top(served)
        assert (view["replicas"], view["unknown"], view["problem"]) == (2, 0, None)


def test_without_the_store_a_replica_shows_its_own_callers_and_says_so(own_store: Store, serve: Serve) -> None:
    both = serve(), serve()
    for served in both:
        served.until(lambda served=served: detail(served)["replicas"] == 2)  # type: ignore[misc]
        ask(served, "one", "192.0.2.1", 3)
    own_store.stop()
    served = both[0]
    served.until(lambda: top(served)["replicas"] == 1)
    view = top(served)
    assert denied(view["all"]) == denied(view["replica"])
    assert view["unknown"] == 1
    assert "Redis" in view["problem"]


def test_a_replica_of_counters_in_memory_is_alone(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(CONFIG)
    served = Served(tmp_path, tmp_path / "api.yaml", settings={"EXTAUTH_REDIS_URL": "memory:"})
    try:
        served.until_it_answers()
        ask(served, "one", "192.0.2.1", 3)
        view = top(served)
    finally:
        served.stop()
    assert denied(view["all"]) == denied(view["replica"]) == {"one": {"one=192.0.2.1": 2}}
    assert (view["replicas"], view["unknown"], view["problem"]) == (1, 0, None)
