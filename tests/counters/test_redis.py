"""Counters against a Redis that forgets, restarts, stalls, and holds what others put there."""

import asyncio
import secrets
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import hiredis
import pytest
from redis.asyncio import Redis

from extauth.counters.redis.connection import ATTEMPT_EVERY_S
from extauth.counters.redis.counters import RIGHTS, RedisCounters
from extauth.errors import StoreError
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support import takes
from tests.support.stores import Store
from tests.support.wait import until_async

LIMITS = [Limit(10, Unit.HOUR, algorithm) for algorithm in Algorithm]


Connect = Callable[..., RedisCounters]


@pytest.fixture
async def client(own_store: Store) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_store.url) as client:
        yield client


@pytest.fixture
async def connect(own_store: Store) -> AsyncIterator[Connect]:
    """Counters in that server, by their timeout in seconds."""
    opened: list[RedisCounters] = []

    def open_(timeout_s: float = 10) -> RedisCounters:
        opened.append(RedisCounters(own_store.url, timeout_s))
        return opened[-1]

    yield open_
    for counters in opened:
        await counters.aclose()


async def take(counters: RedisCounters, limit: Limit, name: str = "c", calls: int = 1) -> int:
    (taken,) = await counters.take([Group(takes.take((name.encode(), limit, 1)), calls)])
    return taken.admitted


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


SPARE_US = 2_001  # of whole milliseconds, both of the server's clock and of what a key has left


async def now_us(client: Redis) -> int:
    seconds, us = await client.time()
    return int(seconds) * 1_000_000 + int(us)


async def a_while(client: Redis) -> None:
    """Let some milliseconds of the server's clock pass, more than SPARE_US."""
    began_us = await now_us(client)
    while await now_us(client) < began_us + 5 * SPARE_US:
        pass


async def gone_us(client: Redis, name: str) -> int:
    """When the server forgets the key: after the millisecond at which it expires."""
    return 1000 * (int(await client.pexpiretime(name)) + 1)


def ends_us(limit: Limit, hits: int, at_us: int) -> int:
    """When a counter that has taken so many hits at this instant holds none any more."""
    match limit.algorithm:
        case Algorithm.GCRA:
            return at_us + limit.period_us * hits // limit.requests_per_unit
        case Algorithm.FIXED_WINDOW:
            return at_us - at_us % limit.period_us + limit.period_us
        case Algorithm.SLIDING_WINDOW:
            return at_us + limit.period_us


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_every_counter_expires_when_it_can_matter_no_more(connect: Connect, client: Redis, limit: Limit) -> None:
    """Not sooner, and hardly later: after the first hits, more of them, and some given back."""
    counters = connect()
    held, takes_us = 0, []
    for hits in (5, 3, -4):
        await a_while(client)
        before_us = await now_us(client)
        await counters.take([Group(takes.take((b"c", limit, hits)), 1)])
        takes_us.append((before_us, await now_us(client)))
        held += hits
        # A bucket drains from the first hits on. A sliding window ends after its newest, which are given back first.
        of_the_first = limit.algorithm is Algorithm.GCRA or (limit.algorithm is Algorithm.SLIDING_WINDOW and hits < 0)
        earliest_us, latest_us = takes_us[0 if of_the_first else -1]
        assert ends_us(limit, held, earliest_us) <= await gone_us(client, "c")
        assert await gone_us(client, "c") <= ends_us(limit, held, latest_us) + SPARE_US
    assert await client.dbsize() == 1


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_what_takes_nothing_lets_no_counter_live_longer(connect: Connect, client: Redis, limit: Limit) -> None:
    counters = connect()
    limit = replace(limit, count_denied=False)
    assert await take(counters, limit, calls=10) == 10
    expires = await client.pexpiretime("c")
    for cost in (1, 0):
        (taken,) = await counters.take([Group(takes.take((b"c", limit, cost)), 1)])
        assert taken.admitted == 0
    assert await client.pexpiretime("c") == expires


CHANGED = [(old, new) for old in LIMITS for new in LIMITS if old.algorithm is not new.algorithm]


@pytest.mark.parametrize(("old", "new"), CHANGED, ids=str)
async def test_a_counter_that_is_put_into_other_terms_expires_by_them(
    connect: Connect, client: Redis, old: Limit, new: Limit
) -> None:
    counters = connect()
    assert await take(counters, replace(old, unit=Unit.DAY), calls=5) == 5
    before_us = await now_us(client)
    assert await take(counters, new) == 1
    after_us = await now_us(client)
    assert ends_us(new, 6, before_us) <= await gone_us(client, "c") <= ends_us(new, 6, after_us) + SPARE_US


async def test_a_sliding_window_that_was_lengthened_is_kept_as_long(connect: Connect, client: Redis) -> None:
    counters = connect()
    short, long = (Limit(10, unit, Algorithm.SLIDING_WINDOW, count_denied=False) for unit in (Unit.MINUTE, Unit.DAY))
    before_us = await now_us(client)
    assert await take(counters, short, calls=99) == 10
    after_us = await now_us(client)
    await a_while(client)
    for limit in (short, long):
        assert await take(counters, limit) == 0
        assert ends_us(limit, 10, before_us) <= await gone_us(client, "c") <= ends_us(limit, 10, after_us) + SPARE_US


async def test_a_full_log_grows_no_further(connect: Connect, client: Redis) -> None:
    limit = Limit(20_000, Unit.HOUR, Algorithm.SLIDING_WINDOW, count_denied=False)
    newest_us, entries = await now_us(client) - 60_000_000, 10_000
    log = b"".join(struct.pack("<dd", newest_us - entries + total, total) for total in range(1, entries + 1))
    await client.set("c", struct.pack("<Bddddd", 3, 3_600_000_000, 0, 0, entries, newest_us) + log)
    before = await client.strlen("c")
    assert await take(connect(), limit, calls=20_000) == 10_000
    assert await client.strlen("c") == before


async def test_a_log_of_which_all_is_given_back_is_gone(connect: Connect, client: Redis) -> None:
    counters = connect()
    limit = Limit(10, Unit.HOUR, Algorithm.SLIDING_WINDOW, count_denied=False)
    assert await take(counters, limit, calls=3) == 3
    await counters.take([Group(takes.take((b"c", limit, -3)), 1)])
    assert await client.dbsize() == 0


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


async def test_a_reply_that_does_not_come_is_a_timeout_and_ends_the_connection(short_path: Path) -> None:
    """It may still come, and would then be taken for the next call's."""
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 0.2)
        server.reply = one_admitted
        await until_async(lambda: counted(counters))
        server.reply = lambda _: b""
        before = server.connections
        with pytest.raises(StoreError) as raised:
            await take(counters, LIMITS[0])
        assert raised.value.kind == "timeout"
        server.reply = one_admitted
        await until_async(lambda: counted(counters))
        assert server.connections > before
        await counters.aclose()


async def counted(counters: RedisCounters) -> bool:
    """Whether the store counted a call in time."""
    try:
        return await take(counters, LIMITS[0]) == 1
    except StoreError:
        return False


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


class Nonsense:
    """A server that takes the handshake, and answers the script with whatever it is told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reply: Callable[[int], bytes] = lambda _number: b"+OK\r\n"
        self.connections = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if (task := asyncio.current_task()) is not None:
            self._tasks.append(task)
        self._writers.append(writer)
        parser = hiredis.Reader()
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    script = command[0] in {b"EVALSHA", b"EVAL"}
                    writer.write(self.reply(int(command[-1])) if script else b"+OK\r\n")
        writer.close()


NONSENSE: dict[str, Callable[[int], bytes]] = {
    "nil": lambda _: b"$-1\r\n",
    "a status": lambda _: b"+OK\r\n",
    "a short list": lambda n: b"*1\r\n:%d\r\n" % n,
    "a long list": lambda n: b"*5\r\n:%d\r\n:1\r\n:0\r\n:0\r\n:0\r\n" % n,
    "an error inside": lambda n: b"*4\r\n:%d\r\n-ERR no\r\n:0\r\n:0\r\n" % n,
    "more than was asked for": lambda n: b"*4\r\n:%d\r\n:99\r\n:0\r\n:0\r\n" % n,
    "another's": lambda n: b"*4\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % (n + 1),
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE)
async def test_a_reply_that_makes_no_sense_is_an_error_and_ends_the_connection(
    short_path: Path, reply: Callable[[int], bytes]
) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = reply
        with pytest.raises(StoreError) as raised:
            await take(counters, LIMITS[0])
        assert (raised.value.kind, str(raised.value)) == ("reply", "Redis replied what the script never says")
        server.reply = lambda n: b"*4\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % n
        assert await take(counters, LIMITS[0]) == 1
        assert server.connections == 2
        await counters.aclose()


MOVED_ON = {
    "READONLY": "-READONLY You can't write against a read only replica. script: on @user_script:284.",
    "READONLY, in the words of Redis 6": "-ERR Error running script (call to f_b72): @user_script:9: @user_script: 9: "
    "-READONLY You can't write against a read only replica.",
    "MASTERDOWN": "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "LOADING": "-LOADING Redis is loading the dataset in memory",
    "NOAUTH": "-NOAUTH Authentication required.",
    "WRONGPASS": "-WRONGPASS invalid username-password pair or user is disabled.",
    "CLUSTERDOWN": "-CLUSTERDOWN Hash slot not served",
    "NOREPLICAS": "-NOREPLICAS Not enough good replicas to write. script: on @user_script:284.",
}
STAYS = {
    "OOM": "-OOM command not allowed when used memory > 'maxmemory'. script: on @user_script:284.",
    "OOM, in the words of Redis 6": "-ERR Error running script (call to f_b72): @user_script:9: @user_script: 9: "
    "-OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOPERM": "-NOPERM this user has no permissions to run the 'evalsha' command",
    "NOPERM in the script": "-ERR The user executing the script can't run this command or subcommand script: b72e",
    "BUSY": "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
}


def one_admitted(number: int) -> bytes:
    return b"*4\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % number


@pytest.mark.parametrize("error", MOVED_ON.values(), ids=MOVED_ON)
async def test_a_server_that_others_have_replaced_is_left_within_the_call(short_path: Path, error: str) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = one_admitted
        assert await take(counters, LIMITS[0]) == 1
        await asyncio.sleep(ATTEMPT_EVERY_S)  # at most so often
        server.reply = lambda n: one_admitted(n) if server.connections > 1 else error.encode() + b"\r\n"
        assert [await take(counters, LIMITS[0]) for _ in range(20)] == [1] * 20
        assert server.connections == 2
        await counters.aclose()


@pytest.mark.parametrize("error", MOVED_ON.values(), ids=MOVED_ON)
async def test_a_server_that_nobody_replaces_is_not_stormed(short_path: Path, error: str) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = lambda _: error.encode() + b"\r\n"
        began = asyncio.get_running_loop().time()
        for _ in range(500):
            with pytest.raises(StoreError) as raised:
                await take(counters, LIMITS[0])
            assert raised.value.kind == "reply"
        took_s = asyncio.get_running_loop().time() - began
        assert server.connections <= 1 + took_s / ATTEMPT_EVERY_S
        await counters.aclose()


@pytest.mark.parametrize("error", STAYS.values(), ids=STAYS)
async def test_a_server_that_refuses_for_now_keeps_its_connection(short_path: Path, error: str) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = one_admitted
        assert await take(counters, LIMITS[0]) == 1
        await asyncio.sleep(ATTEMPT_EVERY_S)  # from then on it might be made anew
        server.reply = lambda _: error.encode() + b"\r\n"
        with pytest.raises(StoreError) as raised:
            await take(counters, LIMITS[0])
        assert raised.value.kind == "reply"
        assert error.rsplit(maxsplit=1)[-1] in str(raised.value)
        server.reply = one_admitted
        assert await take(counters, LIMITS[0]) == 1
        assert server.connections == 1
        await counters.aclose()


async def test_a_peer_that_does_not_speak_redis_is_a_store_failure_and_no_log_line(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n"
        for _ in range(3):
            with pytest.raises(StoreError) as raised:
                await take(counters, LIMITS[0])
            assert raised.value.kind == "connection"
            assert "not the protocol of Redis" in str(raised.value)
        await counters.aclose()
    assert caplog.text == ""


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


async def test_a_reply_too_many_reaches_no_other_call(short_path: Path) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)

        def twice(n: int) -> bytes:
            return b"*4\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % n * 2

        server.reply = twice
        outcomes = await asyncio.gather(*(take(counters, LIMITS[0]) for _ in range(4)), return_exceptions=True)
        assert outcomes[0] == 1
        assert all(outcome == 1 or isinstance(outcome, StoreError) for outcome in outcomes)
        await counters.aclose()


@pytest.mark.parametrize("late", [one_admitted, lambda _: b"-ERR too busy\r\n"], ids=["a reply", "an error"])
async def test_a_reply_for_a_caller_who_gave_up_is_passed_over(short_path: Path, late: Callable[[int], bytes]) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        asked: list[int] = []
        came = asyncio.Event()

        def nothing_yet(number: int) -> bytes:
            asked.append(number)
            came.set()
            return b""

        server.reply = nothing_yet
        who_gives_up = asyncio.create_task(take(counters, LIMITS[0]))
        await asyncio.wait_for(came.wait(), 5)
        who_gives_up.cancel()
        await asyncio.gather(who_gives_up, return_exceptions=True)
        server.reply = lambda number: late(asked[0]) + one_admitted(number)
        assert await take(counters, LIMITS[0]) == 1
        server.reply = one_admitted
        assert await take(counters, LIMITS[0]) == 1
        assert server.connections == 1
        await counters.aclose()
    assert not errors
