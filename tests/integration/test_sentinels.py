"""A service whose Redis is watched by real sentinels: fail-overs under load, TLS, passwords, and the commands."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from extauth.cli import app
from extauth.counters.redis.counters import RIGHTS
from extauth.counters.redis.sentinel import RIGHTS as SENTINEL_RIGHTS
from tests.integration.store_service import Serve, Service
from tests.support.codes import OK, OVER_LIMIT
from tests.support.sentinels import MASTER, Server, Watched
from tests.support.wait import until, until_async

RUN = CliRunner()
SERVER = "redis"  # Debian's, whose sentinel takes the periods that make it quick
BACK_WITHIN_S = 1.0
Start = Callable[..., Watched]


@pytest.fixture
def start(short_path: Path) -> Iterator[Start]:
    started: list[Watched] = []

    def start(**options: Sequence[str] | str) -> Watched:
        started.append(Watched(SERVER, short_path / "redis", **options))  # type: ignore[arg-type]
        return started[-1].start()

    yield start
    for watched in started:
        watched.stop()


def batches(server: Server) -> int:
    """How many it has counted."""
    stats = server.command("INFO", "commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


@asynccontextmanager
async def load(service: Service) -> AsyncIterator[Counter[tuple[str, int | str]]]:
    """Two callers that ask without a pause, and what they got: one has room, the other's limit is used up."""
    results: Counter[tuple[str, int | str]] = Counter()
    over = False

    async def ask(key: str) -> None:
        while not over:
            results[key, await service.ask(key)] += 1

    assert await service.ask("tight") == OK
    asking = [asyncio.create_task(ask(key)) for key in ("wide", "tight")]
    try:
        await until_async(lambda: results["wide", OK] > 100)
        yield results
    finally:
        over = True
        await asyncio.gather(*asking)
    assert set(results) == {("wide", OK), ("tight", OVER_LIMIT)}


async def until_it_counts_at(server: Server, service: Service) -> None:
    before = await asyncio.to_thread(batches, server)

    async def counts() -> bool:
        return await service.store() == "up" and await asyncio.to_thread(batches, server) > before

    await until_async(counts, every_s=0.01)


@pytest.mark.timeout(60)
async def test_when_the_master_dies_under_load_no_call_fails_and_counting_is_shared_again_within_a_second(
    start: Start, serve: Serve
) -> None:
    watched = await asyncio.to_thread(start)
    service = serve(f"redis+sentinel://{watched.trio.hosts}/{MASTER}", EXTAUTH_ON_STORE_FAILURE="local")
    await service.until_store("up")
    async with load(service):
        await asyncio.to_thread(watched.master.stop, signal.SIGKILL)
        switched = await asyncio.to_thread(watched.until_switched)
        await until_it_counts_at(watched.replica, service)
        assert time.monotonic() - switched <= BACK_WITHIN_S
    assert "store_down" in service.events()


@pytest.mark.timeout(60)
async def test_a_master_that_is_cut_off_from_the_sentinels_counts_nothing_after_the_switch(
    start: Start, serve: Serve
) -> None:
    """It still answers the service, but not the sentinels, which may not change it either."""
    watched = await asyncio.to_thread(start)
    service = serve(f"redis+sentinel://{watched.trio.hosts}/{MASTER}", EXTAUTH_ON_STORE_FAILURE="local")
    await service.until_store("up")
    old, new = watched.master, watched.replica
    async with load(service):
        old.command("ACL", "SETUSER", "default", "-ping", "-multi", "-replicaof", "-slaveof")
        before = batches(old)
        switched = await asyncio.to_thread(watched.until_switched)
        assert batches(old) > before  # it has gone on counting until then

        def left() -> bool:
            return "addr=127.0.0.1" not in "".join(map(str, old.command("CLIENT", "LIST", "TYPE", "NORMAL")))

        await asyncio.to_thread(until, left)
        counted = batches(old)
        await until_it_counts_at(new, service)
        assert time.monotonic() - switched <= BACK_WITHIN_S
        assert await service.ask_many("wide", 200) == {OK: 200}
        assert old.command("ROLE")[0] in {b"master", "master"}
        assert batches(old) == counted


@pytest.mark.timeout(60)
async def test_the_sentinels_and_the_servers_have_tls_users_and_passwords(
    start: Start, serve: Serve, tmp_path: Path
) -> None:
    authority, certificate = trustme.CA(), tmp_path / "cert.pem"
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    files = {"cert": certificate, "key": tmp_path / "key.pem", "ca-cert": tmp_path / "ca.pem"}
    tls = tuple(word for name, path in files.items() for word in (f"--tls-{name}-file", str(path)))
    tls += ("--tls-replication", "yes", "--tls-auth-clients", "no")
    rights = f"--user counter on >c ~extauth:* {RIGHTS} +select".split()
    watching = f"user watcher on >w {SENTINEL_RIGHTS}"
    watched = await asyncio.to_thread(
        start, options=(*tls, *rights), sentinel_options=tls, sentinel_lines=[watching], password="s"
    )
    ca = f"ssl_ca_certs={tmp_path / 'ca.pem'}"
    url = (
        f"rediss+sentinel://counter:c@{watched.trio.hosts}/{MASTER}/1?{ca}&sentinel_username=watcher&sentinel_password="
    )
    service = serve(f"{url}w")
    await service.until_store("up")
    assert [await service.ask("tight") for _ in range(2)] == [OK, OVER_LIMIT]

    config = service.served.folder / "d.yaml"
    environ = {"EXTAUTH_REDIS_URL": f"{url}w", "EXTAUTH_CONFIG": str(config)}
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

    async with load_that_may_be_denied(service):
        await asyncio.to_thread(watched.trio.fail_over)
        await asyncio.to_thread(watched.until_switched)
        await until_it_counts_at(watched.replica, service)

    refused = serve(f"{url}hush")
    named = (
        "refuses the user or the password that EXTAUTH_REDIS_URL has, or lacks, as sentinel_username and sentinel_pass"
    )
    await refused.until_store(f"down: no sentinel says where .* is: the sentinel at 127.0.0.1:[0-9]+ {named}word: .*")
    assert "hush" not in refused.log.read_text()


@asynccontextmanager
async def load_that_may_be_denied(service: Service) -> AsyncIterator[None]:
    """A caller with room, that gets an answer each time; while the store is away it is a denial."""
    over = False
    results: Counter[int | str] = Counter()

    async def ask() -> None:
        while not over:
            results[await service.ask("wide")] += 1

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        over = True
        await asking
    assert set(results) <= {OK, OVER_LIMIT}
