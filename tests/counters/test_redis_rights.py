"""The rights of a Redis user for extauth: those that docs/redis.md lists are enough, and none is too many."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from click.testing import CliRunner
from redis.asyncio import Redis

from extauth.cli import app
from extauth.counters.redis.counters import RIGHTS, RedisCounters
from extauth.errors import StoreError
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support import takes
from tests.support.process import Served
from tests.support.stores import SERVERS, Store

RUN = CliRunner()
PAGE = (Path(__file__).parents[2] / "docs/redis.md").read_text(encoding="utf-8")
LINE = "".join(re.findall(r"^(ACL SETUSER extauth .*)$", PAGE, re.MULTILINE))
CONFIG = """domain: d
descriptors:
  - {key: fixed_window, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: sliding_window, rate_limit: {unit: year, requests_per_unit: 3, algorithm: sliding_window}}
  - {key: gcra, rate_limit: {unit: year, requests_per_unit: 3, algorithm: gcra}}
"""


class Server(NamedTuple):
    """A server with the user of the page, by whose URL it is reached."""

    store: Store
    url: str


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Server]:
    store = Store(request.param, short_path).start()
    with redis.Redis.from_url(store.url) as client:
        client.execute_command(*LINE.split())
    yield Server(store, f"{store.url}?username=extauth&password=PASSWORD")
    store.stop()


def test_the_page_lists_them() -> None:
    assert f"ACL SETUSER extauth on >PASSWORD ~extauth:* {RIGHTS}" == LINE


@pytest.mark.parametrize(
    ("option", "right"), [("", ""), ("", "+info"), ("&db=1", "+select"), ("&client_name=x", "+client|setname")]
)
def test_the_service_and_its_commands_run_with_just_those(server: Server, option: str, right: str) -> None:
    folder = server.store.folder / "config"
    folder.mkdir()
    (folder / "f.yaml").write_text(CONFIG)
    if right:
        assert f"`{right}`" in PAGE
        with redis.Redis.from_url(server.store.url) as client:
            client.execute_command("ACL", "SETUSER", "extauth", right)
    url = server.url + option
    served = Served(server.store, folder, settings={"EXTAUTH_REDIS_URL": url, "EXTAUTH_ON_STORE_FAILURE": "error"})
    try:
        served.until_it_answers()
        for algorithm in Algorithm:
            check = ["check", "--address", served.address, "--repeat", "4", "d", f"{algorithm}=1"]
            answers = re.findall(r"^[1-4]  ([A-Z_]+)", RUN.invoke(app, check).stdout, re.MULTILINE)
            assert answers == ["OK"] * 3 + ["OVER_LIMIT"], algorithm
            environ = {"EXTAUTH_REDIS_URL": url, "EXTAUTH_CONFIG": str(folder)}
            assert "0 left" in RUN.invoke(app, ["inspect", "d", f"{algorithm}=1"], env=environ).stdout
            assert RUN.invoke(app, ["reset", "--yes", "d", f"{algorithm}=1"], env=environ).exit_code == 0
            assert "3 left" in RUN.invoke(app, ["inspect", "d", f"{algorithm}=1"], env=environ).stdout
    finally:
        served.stop()


class Clock:
    """Microseconds since the epoch, which go on when told to."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


Connect = Callable[[str, Clock | None], RedisCounters]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    opened: list[RedisCounters] = []

    def open_(url: str, clock: Clock | None) -> RedisCounters:
        opened.append(RedisCounters(url, 10, clock))
        return opened[-1]

    yield open_
    for counters in opened:
        await counters.aclose()


async def use_all(connect: Connect, server: Server) -> None:
    """Count in every way that there is, on a server that knows no script, and see that each counts."""
    clock = Clock()
    counters = connect(server.url, clock)
    for algorithm in Algorithm:
        limit = Limit(1000, Unit.HOUR, algorithm, count_denied=False)
        name = f"extauth:{algorithm}".encode()
        for admitted in (600, 400, 0):
            (taken,) = await counters.take([Group(takes.take((name, limit, 1)), 600)])
            assert taken.admitted == admitted, algorithm
        for hits in (-1, -999, 1):
            await counters.take([Group(takes.take((name, limit, hits)), 1)])
            clock.now_us += 1
        for _ in range(200):  # until what has left a sliding window is trimmed
            clock.now_us += Unit.HOUR.seconds * 1_000_000 // 100
            (taken,) = await counters.take([Group(takes.take((name, limit, 1)), 1)])
            assert taken.admitted == 1, algorithm
        assert await counters.forget([name]) == 1
    unpaced = connect(server.url, None)
    await unpaced.probe()
    assert await unpaced.exchange_heartbeats("a", "-", "1.0 0 closed", b"report") == b""
    assert await unpaced.read_reports(["a", "b"]) == [b"report", b""]
    assert (await unpaced.read_heartbeats()).startswith(b"a ")
    await unpaced.exchange_heartbeats("a", "-", "")


async def test_all_of_them_are_enough(server: Server, connect: Connect) -> None:
    await use_all(connect, server)


@pytest.mark.parametrize("right", RIGHTS.split())
async def test_without_one_of_them_the_store_fails_and_none_is_admitted(
    server: Server, connect: Connect, right: str
) -> None:
    async with Redis.from_url(server.store.url) as client:
        await client.execute_command("ACL", "SETUSER", "extauth", f"-{right[1:]}")  # type: ignore[no-untyped-call]
        with pytest.raises(StoreError, match=re.escape(f"a right that counting needs ({RIGHTS} ~extauth:*): ")):
            await use_all(connect, server)
