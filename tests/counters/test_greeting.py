"""What a server is asked when it is connected to: one that does not count is refused, one that evicts is reported."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from extauth.counters.redis.counters import RIGHTS, RedisCounters
from extauth.errors import StoreError
from tests.counters.redis_take import LIMITS, take
from tests.support.ports import free_port
from tests.support.stores import SERVERS, Sentinel, Store

NO_HELLO = ("--rename-command", "HELLO", "")  # as before Redis 6
REPLICA = ("--replicaof", "127.0.0.1", "1")
Start = Callable[..., Store]


@pytest.fixture(params=SERVERS)
def start(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Start]:
    started: list[Store] = []

    def start(*arguments: str, kind: type[Store] = Store) -> Store:
        started.append(kind(request.param, short_path, *arguments).start())
        return started[-1]

    yield start
    for store in started:
        store.stop()


def cluster() -> tuple[str, ...]:
    return ("--port", str(free_port()), "--cluster-port", str(free_port()), "--bind", "127.0.0.1", *CLUSTER)


CLUSTER = ("--cluster-enabled", "yes")
REPLICA_SAID = "is a read-only replica: counting needs the master, so EXTAUTH_REDIS_URL must name that one"
SENTINEL_SAID = "is a Sentinel, which counts nothing: EXTAUTH_REDIS_URL must be redis+sentinel://HOST:PORT/MASTER, "


async def refused(store: Store) -> str:
    counters = RedisCounters(store.url, 10)
    for ask in (counters.probe, lambda: take(counters, LIMITS[0])):
        with pytest.raises(StoreError) as raised:
            await ask()
        assert raised.value.kind == "reply"
    await counters.aclose()
    return str(raised.value)


@pytest.mark.parametrize("before_6", [False, True])
async def test_a_replica_is_refused_and_nothing_is_sent_to_it(start: Start, before_6: bool) -> None:
    store = start(*REPLICA, *(NO_HELLO if before_6 else ()))
    assert await refused(store) == f"Redis at {store.socket} {REPLICA_SAID}"
    async with Redis.from_url(store.url, protocol=2) as client:
        assert "cmdstat_evalsha" not in await client.info("commandstats")


async def test_a_replica_that_accepts_writes_is_refused_too(start: Start) -> None:
    assert REPLICA_SAID in await refused(start(*REPLICA, "--replica-read-only", "no"))


async def test_a_sentinel_is_refused(start: Start) -> None:
    store = start(kind=Sentinel)
    assert (await refused(store)).startswith(f"Redis at {store.socket} {SENTINEL_SAID}")


async def test_a_node_of_a_cluster_is_refused_even_one_that_has_all_slots(start: Start) -> None:
    store = start(*cluster())
    async with Redis.from_url(store.url, protocol=2) as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
    said = "is a node of a Redis Cluster: EXTAUTH_REDIS_URL must be redis+cluster://HOST:PORT, or rediss+cluster:// "
    assert await refused(store) == f"Redis at {store.socket} {said}for TLS"


@pytest.mark.parametrize("arguments", [(), NO_HELLO], ids=["HELLO", "ROLE"])
async def test_a_master_is_asked_once_a_connection(start: Start, arguments: tuple[str, ...]) -> None:
    store = start(*arguments)
    counters = RedisCounters(store.url, 10)
    for _ in range(5):
        assert await take(counters, LIMITS[0]) == 1
    async with Redis.from_url(store.url, protocol=2) as client:
        calls = await client.info("commandstats")
        assert calls["cmdstat_role" if arguments else "cmdstat_hello"]["calls"] == 1
        assert calls["cmdstat_evalsha"]["calls"] >= 5
    await counters.aclose()


async def test_a_policy_that_evicts_is_reported_once_and_no_failure(start: Start) -> None:
    store = start("--maxmemory-policy", "volatile-lru")
    reasons: list[str] = []
    counters = RedisCounters(store.url, 10, evicts=reasons.append)

    async def reconnect(client: Redis) -> None:
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
        await counters.probe()

    await counters.probe()
    expected = f"Redis at {store.socket} has the maxmemory-policy volatile-lru: where its memory is used up it throws "
    assert reasons == [f"{expected}counters away, and their callers begin anew"]
    async with Redis.from_url(store.url, protocol=2) as client:
        await reconnect(client)
        assert len(reasons) == 1
        await client.config_set("maxmemory-policy", "allkeys-random")
        await reconnect(client)
        assert "allkeys-random" in reasons[1]
        await client.config_set("maxmemory-policy", "noeviction")
        await reconnect(client)
    assert len(reasons) == 2
    await counters.aclose()


@pytest.mark.parametrize("right", ["", "+info"])
async def test_a_user_without_the_right_to_info_does_not_learn_of_it(start: Start, right: str) -> None:
    store = start("--maxmemory-policy", "volatile-lru")
    async with Redis.from_url(store.url, protocol=2) as client:
        await client.execute_command("ACL", "SETUSER", "u", "on", ">p", "~extauth:*", *RIGHTS.split(), *right.split())  # type: ignore[no-untyped-call]
    reasons: list[str] = []
    counters = RedisCounters(f"{store.url}?username=u&password=p", 10, evicts=reasons.append)
    await counters.probe()
    assert len(reasons) == (1 if right else 0)
    await counters.aclose()


async def test_a_user_without_the_right_to_role_is_told_by_hello(start: Start) -> None:
    store = start(*REPLICA)
    async with Redis.from_url(store.url, protocol=2) as client:
        await client.execute_command("ACL", "SETUSER", "u", "on", ">p", "~extauth:*", *RIGHTS.split())  # type: ignore[no-untyped-call]
    counters = RedisCounters(f"{store.url}?username=u&password=p", 10)
    with pytest.raises(StoreError, match=REPLICA_SAID):
        await counters.probe()
    await counters.aclose()
