"""What callers, metrics, `/readyz` and the log see of a store that stalls, moves, refuses, or is none."""

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.integration.store_service import Serve, Service
from tests.support.codes import OK, OVER_LIMIT
from tests.support.ports import free_port
from tests.support.proxy import Conduct, Proxy
from tests.support.stores import SERVERS, Sentinel, Store

Command = tuple[str, ...]
REPLICA, MASTER = ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")
ONE_COUNTER = b"*5\r\n"  # how take.lua's reply for one begins; a probe has two
KILL = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def setting(name: str, value: str) -> Command:
    return ("CONFIG", "SET", name, value)


def user(*rules: str) -> Command:
    return ("ACL", "SETUSER", "u", *rules)


async def run(client: Redis, *commands: Command) -> None:
    for command in commands:
        await client.execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.fixture
def start_store(short_path: Path) -> Iterator[Callable[..., Store]]:
    """Servers of the test's own."""
    started: list[Store] = []

    def start(server: str, *arguments: str) -> Store:
        folder = short_path / f"r{len(started)}"
        folder.mkdir()
        started.append(Store(server, folder, *arguments).start())
        return started[-1]

    yield start
    for store in started:
        store.stop()


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Settings of a service on that event loop, which lets pass what it cannot count."""
    if request.param == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError")  # as where it is not installed
    return {"PYTHONPATH": str(tmp_path), "EXTAUTH_REDIS_TIMEOUT": "0.25", "EXTAUTH_ON_STORE_FAILURE": "allow"}


async def asked_across_stops(
    service: Service, proxy: Proxy, times: int, *, cut: bool = False, stopped_s: float = 0.35, timeout_s: float = 20
) -> list[int | str]:
    """What a used-up caller gets while the store's answer comes to a service that is stopped, until a clock runs out.

    With `cut` the connection to the store is new each time, and what is awaited is its first answer.
    """
    await service.until_store("up")
    assert await service.ask("tight") == OK
    codes = []
    for _ in range(times):
        proxy.hold(b"" if cut else ONE_COUNTER)
        if cut:
            proxy.cut()
        asked = asyncio.create_task(service.ask("tight", timeout_s))
        await asyncio.wait_for(proxy.answered.wait(), 20)
        service.process.send_signal(signal.SIGSTOP)
        proxy.release()
        await asyncio.sleep(stopped_s)
        service.process.send_signal(signal.SIGCONT)
        codes.append(await asked)
    return codes


@pytest.mark.parametrize("cut", [True, False])
async def test_where_a_new_connection_is_never_answered_nothing_is_sent_over_it(
    serve: Serve, own_store: Store, short_path: Path, cut: bool
) -> None:
    settings = {"EXTAUTH_REDIS_TIMEOUT": "0.25", "EXTAUTH_ON_STORE_FAILURE": "error"}
    async with Proxy(short_path / "p", own_store.socket) as proxy:
        service = serve(proxy.url, **settings)
        await service.until_store("up")
        proxy.conduct = Conduct.SWALLOW
        if cut:
            proxy.cut()
        while await service.store() == "up":
            await service.ask("wide")
        failures = await service.metric("extauth_store_errors_total")
        codes: Counter[int | str] = Counter()
        while await service.metric("extauth_store_errors_total") < failures + 3:
            codes += await service.ask_many("wide", 40)
        assert codes.keys() == {"UNAVAILABLE"}


async def test_an_answer_that_came_while_the_service_was_stopped_counts(
    serve: Serve, own_store: Store, short_path: Path, loop_settings: dict[str, str]
) -> None:
    async with Proxy(short_path / "p", own_store.socket) as proxy:
        service = serve(proxy.url, **loop_settings)
        assert await asked_across_stops(service, proxy, 10) == [OVER_LIMIT] * 10
        assert await service.metric("extauth_store_errors_total") == 0


async def test_an_answer_that_came_while_the_service_was_stopped_counts_past_the_calls_own_time_too(
    serve: Serve, own_store: Store, short_path: Path, loop_settings: dict[str, str]
) -> None:
    """Of its timeout of 2 s, a call waits for 1.5 s."""
    async with Proxy(short_path / "p", own_store.socket) as proxy:
        service = serve(proxy.url, **loop_settings | {"EXTAUTH_REDIS_TIMEOUT": "20"})
        codes = await asked_across_stops(service, proxy, 3, stopped_s=1.55, timeout_s=2)
        assert codes == [OVER_LIMIT] * 3
        assert await service.metric("extauth_shed_calls_total") == 0


async def test_a_connection_that_came_about_while_the_service_was_stopped_is_used(
    serve: Serve, own_store: Store, short_path: Path, loop_settings: dict[str, str]
) -> None:
    async with Proxy(short_path / "p", own_store.socket) as proxy:
        service = serve(proxy.url, **loop_settings)
        assert await asked_across_stops(service, proxy, 5, cut=True) == [OVER_LIMIT] * 5
        assert await service.metric("extauth_store_errors_total") == 0


async def test_callers_go_on_being_counted_when_another_server_takes_over_the_address(
    serve: Serve, start_store: Callable[..., Store], short_path: Path
) -> None:
    old, new = start_store("valkey"), start_store("redis")
    async with Proxy(short_path / "p", old.socket) as proxy, Redis.from_url(old.url) as old_client:
        service = serve(proxy.url)
        await service.until_store("up")
        load = asyncio.create_task(service.ask_many("wide", 2000))
        while await service.metric("http_requests_total") < 200:
            assert not load.done()
        proxy.target = new.socket
        await run(old_client, REPLICA)  # and it keeps the connections that it has
        assert await load == {OK: 2000}
        assert await service.metric("extauth_store_errors_total") == 0
        assert await service.store() == "up"
        async with Redis.from_url(new.url) as new_client:
            assert await new_client.keys("extauth:{*") != []
        assert proxy.connections <= 3


@dataclass(frozen=True)
class Fault:
    """How a server is made to refuse, and to count again, and how it is named."""

    commands: tuple[Command, ...]
    mend: tuple[Command, ...]
    named: str


FAULTS = {
    "a read-only replica": Fault((REPLICA,), (MASTER,), "is a read-only replica: .*"),
    "a replica without its master": Fault(
        (setting("replica-serve-stale-data", "no"), REPLICA),
        (MASTER,),
        "is a (read-only replica|replica that has lost its master): .*",
    ),
    "too few replicas": Fault(
        (setting("min-replicas-to-write", "1"),), (setting("min-replicas-to-write", "0"),), "has fewer replicas .*"
    ),
    "a full server": Fault((setting("maxmemory", "1"),), (setting("maxmemory", "0"),), "is full: .*maxmemory.*"),
    "a user without a command of the script": Fault(
        (user("-set"),), (user("+set"),), r"denies the user .* a right .*\+set .*"
    ),
    "a user without scripts": Fault(
        (user("-evalsha"),), (user("+evalsha"),), r"denies the user .* a right .*\+evalsha .*'evalsha'.*"
    ),
    "a user without the keys": Fault(
        (user("resetkeys", "~other:*"),), (user("~*"),), r"denies the user .* a right .*~extauth:\*.*"
    ),
    "a user whose password was changed": Fault(
        (user("resetpass", ">other"), KILL), (user(">p"),), "refuses the user or the password .*: .*"
    ),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_server_that_refuses_is_a_store_failure_until_it_counts_again(
    serve: Serve, start_store: Callable[..., Store], server: str, fault: Fault
) -> None:
    store = start_store(server)
    async with Redis.from_url(store.url) as client:
        await run(client, user("on", ">p", "+@all", "~*"))
        service = serve(f"{store.url}?username=u&password=p")
        await service.until_store("up")
        assert await service.ask("wide") == OK

        await run(client, *fault.commands)
        assert await service.ask_many("wide", 200) == {OVER_LIMIT: 200}
        assert await service.metric('extauth_store_failure_decisions_total{outcome="deny"}') == 200
        assert await service.metric('extauth_store_errors_total{kind="reply"}') >= 1
        assert await service.metric("extauth_store_up") == 0
        states = {await service.store() for _ in range(40)}
        assert all(re.fullmatch(f"down: Redis at {store.socket} {fault.named}", state) for state in states), states

        await run(client, *fault.mend)
        await service.until_store("up")
        assert await service.ask("wide") == OK
        await service.until_events("store_up", "store_down", "store_up")


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_that_asks_for_a_password_from_now_on_is_a_store_failure(
    serve: Serve, start_store: Callable[..., Store], server: str
) -> None:
    store = start_store(server)
    service = serve(store.url)
    await service.until_store("up")
    async with Redis.from_url(store.url) as client:
        await client.config_set("requirepass", "p")
        await run(client, KILL)
        assert await service.ask_many("wide", 200) == {OVER_LIMIT: 200}
        await service.until_store("down: Redis at .* refuses the user or the password .*: .*Authentication required.*")
        await client.config_set("requirepass", "")
        await service.until_store("up")
        assert await service.ask("wide") == OK


@pytest.mark.parametrize("server", SERVERS)
async def test_a_sentinel_is_named(serve: Serve, short_path: Path, server: str) -> None:
    store = Sentinel(server, short_path).start()
    try:
        service = serve(store.url)
        await service.until_store("down: Redis at .* is a Sentinel, which counts nothing: EXTAUTH_REDIS_URL must be .*")
        assert await service.ask_many("wide", 40) == {OVER_LIMIT: 40}
    finally:
        store.stop()


@pytest.mark.parametrize("server", SERVERS)
async def test_a_node_of_a_cluster_is_named(serve: Serve, start_store: Callable[..., Store], server: str) -> None:
    ports = ("--port", str(free_port()), "--cluster-port", str(free_port()), "--bind", "127.0.0.1")
    store = start_store(server, "--cluster-enabled", "yes", *ports)
    service = serve(store.url)
    await service.until_store(
        "down: Redis at .* is a node of a Redis Cluster: EXTAUTH_REDIS_URL must be redis.cluster:.*"
    )
    assert await service.ask_many("wide", 40) == {OVER_LIMIT: 40}


async def test_a_server_that_evicts_is_a_warning_once(serve: Serve, own_store: Store) -> None:
    async with Redis.from_url(own_store.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        service = serve(own_store.url)
        await service.until_store("up")
        for _ in range(3):
            await run(client, KILL)
            assert await service.ask("wide") == OK
    assert service.events().count("store_evicts") == 1
    (line,) = [line for line in service.served.lines() if line["event"] == "store_evicts"]
    assert line["level"] == "warning"
    assert "the maxmemory-policy allkeys-lru" in str(line["reason"])
    assert line["fix"] == "set its maxmemory-policy to noeviction"


async def test_a_server_that_accepts_and_closes_is_a_store_failure(serve: Serve, short_path: Path) -> None:
    came = 0

    def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        writer.close()

    began = time.monotonic()
    async with await asyncio.start_unix_server(close, short_path / "s"):
        service = serve(f"unix://{short_path}/s")
        assert await service.ask_many("wide", 3600, at_once=12) == {OVER_LIMIT: 3600}
        assert await service.metric('extauth_store_failure_decisions_total{outcome="deny"}') == 3600
        assert await service.metric('extauth_store_errors_total{kind="connection"}') >= 1
        assert (await service.store()).startswith("down: no connection to Redis")
        assert [event for event in service.events() if event != "serving"] == ["store_down"]
        assert came <= (time.monotonic() - began) / 0.05 + 1
