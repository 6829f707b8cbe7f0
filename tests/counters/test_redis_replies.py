"""Replies that are late, make no sense, or say that the server counts no more."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import hiredis
import pytest

from extauth.counters.redis.connection import ATTEMPT_EVERY_S
from extauth.counters.redis.counters import RedisCounters
from extauth.errors import StoreError
from tests.counters.redis_take import LIMITS, take
from tests.support.wait import until_async


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


async def test_commands_behind_one_that_is_not_answered_in_time_fail_with_it_and_are_not_sent_again(
    short_path: Path,
) -> None:
    received: list[int] = []

    def none(number: int) -> bytes:
        received.append(number)
        return b""

    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 0.2)
        server.reply = one_admitted
        await until_async(lambda: counted(counters))
        server.reply = none
        errors = await asyncio.gather(*(take(counters, limit) for limit in LIMITS[:2]), return_exceptions=True)
        assert [isinstance(error, StoreError) and (error.kind, error.sent) for error in errors] == [
            ("timeout", True)
        ] * 2
        assert len(received) == len(set(received)) == 2
        await counters.aclose()


async def counted(counters: RedisCounters) -> bool:
    """Whether the store counted a call in time."""
    try:
        return await take(counters, LIMITS[0]) == 1
    except StoreError:
        return False


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
    "a long list": lambda n: b"*6\r\n:%d\r\n:7\r\n:1\r\n:0\r\n:0\r\n:0\r\n" % n,
    "an error inside": lambda n: b"*5\r\n:%d\r\n:7\r\n-ERR no\r\n:0\r\n:0\r\n" % n,
    "more than was asked for": lambda n: b"*5\r\n:%d\r\n:7\r\n:99\r\n:0\r\n:0\r\n" % n,
    "another's": lambda n: b"*5\r\n:%d\r\n:7\r\n:1\r\n:0\r\n:0\r\n" % (n + 1),
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
        server.reply = lambda n: b"*5\r\n:%d\r\n:7\r\n:1\r\n:0\r\n:0\r\n" % n
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
    return b"*5\r\n:%d\r\n:7\r\n:1\r\n:0\r\n:0\r\n" % number


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


async def test_a_reply_too_many_reaches_no_other_call(short_path: Path) -> None:
    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)

        def twice(n: int) -> bytes:
            return b"*5\r\n:%d\r\n:7\r\n:1\r\n:0\r\n:0\r\n" % n * 2

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


async def test_a_slow_reply_does_not_set_the_stores_clock_back(short_path: Path) -> None:
    ahead_us, slow_s = 10_000_000, 0.02

    def reply(number: int) -> bytes:
        at_us = time.monotonic_ns() // 1000 + ahead_us
        time.sleep(slow_s)  # the way back
        return b"*5\r\n:%d\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % (number, at_us)

    async with Nonsense(short_path / "s") as server:
        counters = RedisCounters(f"unix://{server.path}", 5)
        server.reply = lambda n: b"*5\r\n:%d\r\n:%d\r\n:1\r\n:0\r\n:0\r\n" % (n, time.monotonic_ns() // 1000 + ahead_us)
        await take(counters, LIMITS[0])
        server.reply = reply
        await take(counters, LIMITS[0])
        assert counters.now_us() - time.monotonic_ns() // 1000 > ahead_us - slow_s * 1_000_000 / 2
        await counters.aclose()
