"""`extauth.lifecycle.serve` in this process, from its start to its end."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from extauth.errors import ConfigError
from extauth.lifecycle import serve
from extauth.settings import read_settings
from extauth.transport.tls import TlsFiles
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import START, Peer, call
from tests.support.ports import free_port
from tests.support.process import page
from tests.support.stores import Store
from tests.support.wait import until_async
from tests.transport.test_tls import Authority, write

CONFIG = """
domain: api
descriptors: [{key: api_key, rate_limit: {unit: hour, requests_per_unit: NUMBER}}]
"""
BROKEN = "domain: api\ndescriptors: [{kee: api_key}]\n"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Undo what a service asks of its process: its logs, its collector of garbage, its signals."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)
    root.handlers[:], root.level = handlers, level
    logging.getLogger("extauth").setLevel(logging.NOTSET)
    structlog.reset_defaults()


class Running:
    """A service that runs in this loop, the pages of its admin server, and its log."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], task: asyncio.Task[None], port: int) -> None:
        self.config = folder / "api.yaml"
        self.task = task
        self._socket = folder / "grpc"
        self._capture = capture
        self._port = port
        self._log = ""

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        return await asyncio.to_thread(page, self._port, path)

    async def codes(self, calls: int) -> list[int]:
        """The codes of calls, one after the other, over a connection of their own."""
        peer = Peer(*await asyncio.open_unix_connection(str(self._socket)))
        peer.send(START)
        codes = []
        for stream in range(1, 2 * calls, 2):
            peer.send(call(stream))
            (answer,) = await peer.answered(stream)
            codes.append(answer.code)
        await peer.close()
        return codes

    def lines(self) -> list[dict[str, object]]:
        """The log so far."""
        self._log += self._capture.readouterr().err
        return [json.loads(line) for line in self._log.splitlines()]

    def events(self) -> list[object]:
        """The log's events so far."""
        return [line["event"] for line in self.lines()]

    async def until_event(self, event: str) -> None:
        """Wait until the log has it."""
        await until_async(lambda: self.task.done() or event in self.events(), lambda: (event, self.events()))
        assert event in self.events()


@asynccontextmanager
async def running(
    folder: Path, capture: pytest.CaptureFixture[str], config: str = CONFIG.replace("NUMBER", "2"), **settings: str
) -> AsyncIterator[Running]:
    """A service until the block ends, which it does well; `settings` are EXTAUTH_* variables."""
    (folder / "api.yaml").write_text(config)
    port = free_port()
    environ = {
        "EXTAUTH_CONFIG": str(folder / "api.yaml"),
        "EXTAUTH_GRPC_LISTEN": f"unix:{folder}/grpc",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{port}",
        "EXTAUTH_DRAIN_DELAY": "0",
        "EXTAUTH_LOG_FORMAT": "json",
        "EXTAUTH_REDIS_TIMEOUT": "10",
    } | settings
    task = asyncio.create_task(serve(read_settings(environ), environ))
    service = Running(folder, capture, task, port)
    try:
        await service.until_event("serving")
        yield service
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 20)
    assert service.events()[-1] == "stopped"


async def test_it_counts_and_shows_what_it_does(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_path, capsys, EXTAUTH_REDIS_URL=own_store.url, EXTAUTH_REDIS_ULR="x") as service:
        assert await service.codes(3) == [OK, OK, OVER_LIMIT]
        status, page = await service.get("/readyz")
        assert (status, json.loads(page)["rules"]) == (200, 1)
        await service.until_event("store_up")
        assert json.loads((await service.get("/readyz"))[1])["store"] == "up"
        (domain,) = json.loads((await service.get("/rules"))[1])["domains"]
        assert domain["domain"] == "api"
        assert "extauth_store_up 1.0" in (await service.get("/metrics"))[1]
        assert "unknown_variable" in service.events()


async def test_an_edited_file_is_in_force_and_a_broken_one_is_not(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_path, capsys, EXTAUTH_REDIS_URL=own_store.url) as service:
        assert await service.codes(3) == [OK, OK, OVER_LIMIT]
        service.config.write_text(CONFIG.replace("NUMBER", "10"))
        await service.until_event("config_reloaded")
        assert await service.codes(1) == [OK]
        service.config.write_text(BROKEN)
        await service.until_event("config_rejected")
        assert await service.codes(1) == [OK], "the rules in force stay"
        assert "extauth_config_last_reload_successful 0.0" in (await service.get("/metrics"))[1]


async def test_a_domain_that_is_gone_is_named(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_path, capsys, EXTAUTH_REDIS_URL=own_store.url) as service:
        service.config.write_text(CONFIG.replace("NUMBER", "10").replace("domain: api", "domain: other"))
        await service.until_event("domains_gone")
        assert next(line["domains"] for line in service.lines() if line["event"] == "domains_gone") == ["api"]


async def test_a_broken_file_of_several_keeps_its_own_domain_alone(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = short_path / "rules"
    folder.mkdir()
    (folder / "other.yaml").write_text("domain: other\n")
    (folder / "api.yaml").write_text(CONFIG.replace("NUMBER", "1"))
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_CONFIG": str(folder)}
    async with running(short_path, capsys, **settings) as service:
        (folder / "api.yaml").write_text(CONFIG.replace("NUMBER", "9"))
        (folder / "other.yaml").write_text(BROKEN.replace("api", "other"))
        await service.until_event("config_reloaded_in_part")
        (line,) = (line for line in service.lines() if line["event"] == "config_reloaded_in_part")
        assert (line["reloaded"], line["not_reloaded"]) == (["api"], ["other"])
        assert await service.codes(2) == [OK, OK], "by the new rules"


async def test_what_looks_like_a_mistake_is_a_warning(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_path, capsys, EXTAUTH_REDIS_URL=own_store.url) as service:
        service.config.write_text(CONFIG.replace("NUMBER", "1") + "---\ndomain: second\n")
        await service.until_event("config_warning")
        (line,) = (line for line in service.lines() if line["event"] == "config_warning")
        assert "only the file's first document is read" in str(line["problem"])


async def test_where_no_file_is_left_the_rules_stay_in_force(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(short_path, capsys, EXTAUTH_REDIS_URL=own_store.url) as service:
        service.config.unlink()
        await service.until_event("config_rejected")
        (line,) = (line for line in service.lines() if line["event"] == "config_rejected")
        assert (line["kept"], str(service.config) in str(line["problem"])) == ("the rules in force stay", True)
        assert await service.codes(3) == [OK, OK, OVER_LIMIT]


@pytest.mark.parametrize(("policy", "code"), [("allow", OK), ("deny", OVER_LIMIT)])
async def test_without_a_store_the_policy_answers(
    short_path: Path, capsys: pytest.CaptureFixture[str], policy: str, code: int
) -> None:
    settings = {"EXTAUTH_REDIS_URL": f"unix://{short_path}/none", "EXTAUTH_ON_STORE_FAILURE": policy}
    async with running(short_path, capsys, **settings) as service:
        assert await service.codes(2) == [code, code]
        await service.until_event("store_down")
        assert json.loads((await service.get("/readyz"))[1])["store"].startswith("down")


async def test_debug_logs_a_sample_of_the_decisions(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_LOG_LEVEL": "debug", "EXTAUTH_KEY_SECRET": "s" * 32}
    async with running(short_path, capsys, **settings) as service:
        assert await service.codes(1) == [OK]
        await service.until_event("decision")
        (decision,) = (line for line in service.lines() if line["event"] == "decision")
        assert (decision["rules"], decision["allowed"], decision["denied"]) == (["api_key"], 1, 0)


async def test_the_denial_cache_and_the_headers_are_settings(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_DENIAL_CACHE": "0", "EXTAUTH_RESPONSE_HEADERS": "a,b,c"}
    async with running(short_path, capsys, **settings) as service:
        assert await service.codes(4) == [OK, OK, OVER_LIMIT, OVER_LIMIT]


async def test_the_other_engine_counts_too(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_ENGINE": "grpcio"}
    async with running(short_path, capsys, **settings) as service:
        assert await service.codes(3) == [OK, OK, OVER_LIMIT]


async def test_a_second_signal_ends_the_drain(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_DRAIN_DELAY": "60"}
    async with running(short_path, capsys, **settings) as service:
        os.kill(os.getpid(), signal.SIGTERM)
        await service.until_event("draining")
        assert await service.codes(1) == [OK], "calls are answered meanwhile"
        status, page = await service.get("/readyz")
        assert (status, json.loads(page)["status"]) == (503, "draining")


async def test_a_new_certificate_is_taken_and_a_broken_one_is_not(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    files, authority = TlsFiles(short_path / "cert.pem", short_path / "key.pem"), Authority()
    write(files, authority)
    settings = {
        "EXTAUTH_REDIS_URL": own_store.url,
        "EXTAUTH_GRPC_TLS_CERT": str(files.cert),
        "EXTAUTH_GRPC_TLS_KEY": str(files.key),
    }
    async with running(short_path, capsys, **settings) as service:
        assert next(line["tls"] for line in service.lines() if line["event"] == "serving") == "on"
        write(files, authority)
        await service.until_event("tls_reloaded")
        files.cert.write_text("no certificate")
        await service.until_event("tls_rejected")


async def test_it_does_not_start_with_a_broken_config(short_path: Path, own_store: Store) -> None:
    config = short_path / "api.yaml"
    config.write_text(BROKEN)
    environ = {"EXTAUTH_CONFIG": str(config), "EXTAUTH_REDIS_URL": own_store.url}
    with pytest.raises(ConfigError, match="kee"):
        await serve(read_settings(environ), environ)


async def test_with_keep_going_it_starts_with_the_domains_that_load(
    short_path: Path, own_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = short_path / "rules"
    folder.mkdir()
    (folder / "broken.yaml").write_text(BROKEN.replace("api", "broken"))
    (folder / "api.yaml").write_text(CONFIG.replace("NUMBER", "1"))
    settings = {"EXTAUTH_REDIS_URL": own_store.url, "EXTAUTH_CONFIG": str(folder), "EXTAUTH_KEEP_GOING": "true"}
    async with running(short_path, capsys, **settings) as service:
        assert await service.codes(2) == [OK, OVER_LIMIT]
        assert "config_rejected" in service.events()
