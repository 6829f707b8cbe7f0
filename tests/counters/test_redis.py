"""Counters against a Redis that forgets, restarts, stalls, and holds what others put there."""

import secrets
import signal
import struct
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from extauth.counters.redis.counters import RIGHTS, RedisCounters
from extauth.errors import StoreError
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.counters.redis_take import LIMITS, Connect, now_us, take
from tests.support import takes
from tests.support.stores import Store
from tests.support.wait import until_async


async def test_the_script_survives_a_flush(connect: Connect, client: Redis) -> None:
    counters = connect()
    assert await take(counters, LIMITS[0], calls=4) == 4
    await client.script_flush()
    assert await take(counters, LIMITS[0], calls=99) == 6


async def test_a_restart_costs_no_call(connect: Connect, own_store: Store) -> None:
    counters = connect()
    assert await take(counters, LIMITS[0], calls=99) == 10
    own_store.stop()
    own_store.start()
    assert await take(counters, LIMITS[0], calls=99) == 10


async def test_a_full_log_grows_no_further(connect: Connect, client: Redis) -> None:
    limit = Limit(20_000, Unit.HOUR, Algorithm.SLIDING_WINDOW, count_denied=False)
    newest_us, entries = await now_us(client) - 60_000_000, 10_000
    log = b"".join(struct.pack("<dd", newest_us - entries + total, total) for total in range(1, entries + 1))
    await client.set("c", struct.pack("<Bddddd", 3, 3_600_000_000, 0, 0, entries, newest_us) + log)
    before = await client.strlen("c")
    assert await take(connect(), limit, calls=20_000) == 10_000
    assert await client.strlen("c") == before


async def changes(client: Redis) -> int:
    """How many keys the server has written and deleted, the same one as often as that was."""
    return int((await client.info("persistence"))["rdb_changes_since_last_save"])


@pytest.mark.parametrize("requests", [0, 10])
@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_a_denial_writes_nothing(connect: Connect, client: Redis, limit: Limit, requests: int) -> None:
    counters = connect()
    limit = replace(limit, requests_per_unit=requests, count_denied=False)
    assert await take(counters, limit, calls=99) == requests
    before = await changes(client)
    assert await take(counters, limit, calls=9) == 0
    assert await changes(client) == before
    assert await client.dbsize() == min(requests, 1)


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_a_foreign_value_is_no_count(connect: Connect, client: Redis, limit: Limit) -> None:
    counters = connect()
    await client.rpush("list", "x")
    await client.set("text", "hello")
    await client.set("empty", "")
    await client.set("negative", struct.pack("<Bdddd", 1, -5, 0, 6, 1))
    await client.set("nothing", struct.pack("<Bdddd", 1, float("nan"), float("nan"), 6, 1))
    await client.set("unknown", struct.pack("<Bdd", 9, 2e15, 5))
    cut_short = [f"kind {kind}" for kind in (1, 2, 3)]  # they begin as a state does
    for kind, name in enumerate(cut_short, start=1):
        await client.set(name, struct.pack("<Bd", kind, 2e15))
    for name in ("list", "text", "empty", "negative", "nothing", "unknown", *cut_short):
        assert await take(counters, limit, name, calls=99) == 10
        assert await take(counters, limit, name) == 0


async def test_its_clock_is_the_servers(connect: Connect, client: Redis) -> None:
    seconds, _ = await client.time()
    counters = connect()
    await take(counters, Limit(1, Unit.DAY))
    state = await client.get("c")
    assert isinstance(state, bytes)
    kind, end_us, used = struct.unpack("<Bdd", state)
    assert (kind, used) == (2, 1)
    assert 0 < end_us - seconds * 1_000_000 <= 86_400 * 1_000_000


async def test_a_store_that_stalls_is_a_timeout(connect: Connect, own_store: Store) -> None:
    counters = connect(0.05)
    assert await take(connect(), LIMITS[0]) == 1
    own_store.signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreError) as raised:
            await take(counters, LIMITS[0])
        assert raised.value.kind == "timeout"
        with pytest.raises(StoreError):
            await counters.probe()
    finally:
        own_store.signal(signal.SIGCONT)
    assert await take(connect(), LIMITS[0]) == 1


async def test_a_store_that_is_gone_is_a_connection_error(connect: Connect, own_store: Store) -> None:
    counters = connect()
    own_store.stop()
    with pytest.raises(StoreError) as raised:
        await take(counters, LIMITS[0])
    assert raised.value.kind == "connection"


async def test_a_store_that_refuses_is_a_reply_error(connect: Connect, client: Redis) -> None:
    counters = connect()
    await client.config_set("maxmemory", 1)
    with pytest.raises(StoreError) as raised:
        await take(counters, LIMITS[0])
    assert raised.value.kind == "reply"
    await client.config_set("maxmemory", 0)


async def test_a_probe_counts_on_keys_of_its_own_that_soon_end(connect: Connect, client: Redis) -> None:
    counters = connect()

    async def both_are_there() -> bool:  # they may end with the second in which they were written
        await counters.probe()
        return sorted(await client.keys("*")) == [b"extauth:probe:a", b"extauth:probe:b"]

    await until_async(both_are_there)
    gone = -2
    for name in ("extauth:probe:a", "extauth:probe:b"):
        left_ms = await client.pttl(name)
        assert left_ms == gone or 0 <= left_ms <= 1000


async def test_the_rights_that_are_named_are_enough(any_store: Store) -> None:
    async with Redis.from_url(any_store.url) as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", "counter", "on", ">p", "resetkeys", "~extauth:*", "nocommands", *RIGHTS.split()
        )
    counters = RedisCounters(f"{any_store.url}?username=counter&password=p", 10)
    await counters.probe()
    for limit in LIMITS:
        name = f"extauth:rights:{secrets.token_hex(8)}"
        assert await take(counters, limit, name, calls=4) == 4
        assert await take(counters, limit, name, calls=99) == 6
        (given_back,) = await counters.take([Group(takes.take((name.encode(), limit, -20)), 1)])
        assert given_back.admitted == 1
    await counters.aclose()
