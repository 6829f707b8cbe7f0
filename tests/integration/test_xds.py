"""`extauth serve` with the rules of an xDS server."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extauth.config.sources.xds_cache import read_cache, write_cache
from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.config.xds.fake_server import FakeXds, fake_xds
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import START, Answer, Peer, call
from tests.support.process import Served
from tests.support.stores import Store
from tests.support.wait import until_async
from tests.support.xds_messages import config, response

Serve = Callable[..., Served]


def rules(requests: int, domain: str = "d") -> bytes:
    limit = {"unit": "day", "requests_per_unit": requests}
    return config({"domain": domain, "descriptors": [{"key": "k", "rate_limit": limit}]})


@pytest.fixture
async def xds() -> AsyncIterator[FakeXds]:
    async with fake_xds() as server:
        yield server


@pytest.fixture
def serve(short_path: Path) -> Iterator[Serve]:
    """Starts services; they end together."""
    started: list[Served] = []

    def start(server: FakeXds, beside: Store | Path = short_path, **settings: str) -> Served:
        folder = short_path / str(len(started))
        folder.mkdir()
        own = {"EXTAUTH_CONFIG": f"xds://{server.address}", "EXTAUTH_LOG_FORMAT": "json"}
        if isinstance(beside, Path):
            own["EXTAUTH_REDIS_URL"] = "memory:"
            beside = folder
        started.append(Served(beside, folder, folder=folder, settings=own | settings))
        return started[-1]

    yield start
    for served in started:
        served.stop()


async def codes(served: Served, calls: int, domain: str = "d") -> list[int]:
    return await answers(served, *[encode_request(domain, [read_descriptor("k=v")])] * calls)


async def answers(served: Served, *messages: bytes) -> list[int]:
    """The codes of the answers to these calls, one after the other."""
    return [answer.code for answer in await whole_answers(served, *messages)]


async def whole_answers(served: Served, *messages: bytes) -> list[Answer]:
    peer = Peer(*await asyncio.open_unix_connection(served.address.removeprefix("unix:")))
    peer.send(START)
    found = []
    for number, message in enumerate(messages):
        stream = 2 * number + 1
        peer.send(call(stream, message))
        found += await peer.answered(stream)
    await peer.close()
    return found


async def readiness(served: Served) -> tuple[int, Any]:
    status, page = await asyncio.to_thread(served.get, "/readyz")
    return status, json.loads(page)


def listens(served: Served) -> bool:
    return Path(served.address.removeprefix("unix:")).exists()


async def until_status(served: Served, wanted: str) -> None:
    async def so() -> bool:
        assert served.process.poll() is None, served.log.read_text()
        try:
            return bool((await readiness(served))[1]["status"] == wanted)
        except OSError:
            return False

    await until_async(so, served.log.read_text, every_s=0.02)


async def until_event(served: Served, event: str) -> dict[str, object]:
    def found() -> list[dict[str, object]]:
        return [line for line in served.lines() if line["event"] == event]

    await until_async(found, served.log.read_text, every_s=0.02)
    return found()[-1]


async def test_calls_are_taken_once_the_first_rules_are_in_force(xds: FakeXds, serve: Serve) -> None:
    served = serve(xds)
    await xds.until_requests(1)
    await until_status(served, "starting")
    assert (await until_event(served, "xds_connected"))["waits_for"]
    assert not listens(served)
    xds.push(response("1", rules(2)))
    await until_status(served, "ready")
    assert await codes(served, 3) == [OK, OK, OVER_LIMIT]
    await xds.until_requests(2)
    xds.push(response("2", rules(5)))
    await xds.until_requests(3)  # which comes once they are in force
    assert await codes(served, 3) == [OK, OK, OVER_LIMIT]  # three of five were counted


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_service_that_waits_for_its_rules_can_be_stopped(
    xds: FakeXds, serve: Serve, own_store: Store, workers: int
) -> None:
    served = serve(xds, own_store, EXTAUTH_WORKERS=str(workers))
    await xds.until_requests(1)
    served.process.send_signal(signal.SIGTERM)
    await until_async(lambda: served.process.poll() is not None, served.log.read_text)
    assert served.process.returncode == 0
    assert served.lines()[-1]["event"] == "stopped"


async def test_it_need_not_wait(xds: FakeXds, serve: Serve) -> None:
    served = serve(xds, EXTAUTH_START_WITHOUT_RULES="true")
    await until_status(served, "ready")
    assert await codes(served, 1) == [OK]
    await xds.until_requests(1)
    xds.push(response("1", rules(0)))
    await xds.until_requests(2)
    assert await codes(served, 1) == [OVER_LIMIT]


async def test_mistakes_are_logged_and_shown(xds: FakeXds, serve: Serve) -> None:
    served = serve(xds)
    await xds.until_requests(1)
    bad = config({"domain": "b", "descriptors": [{"key": ""}]})
    xds.push(response("1", rules(2), bad))
    await until_status(served, "ready")
    rejected = await until_event(served, "config_rejected")
    assert str(rejected["problem"]).startswith("xds:b#descriptors[0].key: must not be empty")
    assert "config_warning" not in {line["event"] for line in served.lines()}


async def test_workers_have_the_rules_too(xds: FakeXds, serve: Serve, own_store: Store) -> None:
    served = serve(xds, own_store, EXTAUTH_WORKERS="2", EXTAUTH_REDIS_TIMEOUT="10")
    await xds.until_requests(1)
    await until_status(served, "starting")
    xds.push(response("1", rules(2)))
    await until_status(served, "ready")
    assert [*await codes(served, 1), *await codes(served, 1), *await codes(served, 1)] == [OK, OK, OVER_LIMIT]
    await xds.until_requests(2)
    xds.push(response("2", rules(4)))
    await xds.until_requests(3)
    assert [*await codes(served, 1), *await codes(served, 1)] == [OK, OVER_LIMIT]


async def test_the_cache_serves_a_start_without_the_server(xds: FakeXds, serve: Serve, short_path: Path) -> None:
    cache = short_path / "cache"
    first = serve(xds, EXTAUTH_CONFIG_CACHE=str(cache))
    await xds.until_requests(1)
    xds.push(response("1", rules(1), rules(7, "other")))
    await xds.until_requests(2)
    xds.push(response("2", rules(2), config({"domain": "other", "descriptors": [{"key": ""}]})))
    await xds.until_requests(3)
    kept = {rules(2), rules(7, "other")}  # the good one of now, and the last good one of what is bad now
    await until_async(lambda: {resource.value for resource in read_cache(cache, 1 << 20) or ()} == kept)
    assert cache.stat().st_mode & 0o777 == 0o600
    first.stop()
    await xds.stop()
    second = serve(xds, EXTAUTH_CONFIG_CACHE=str(cache))
    await until_status(second, "ready")
    assert (await until_event(second, "config_cache_read"))["domains"] == 2
    assert await codes(second, 3) == [OK, OK, OVER_LIMIT]
    assert await codes(second, 1, "other") == [OK]
    await xds.start()


def quota(key: str, requests: int) -> dict[str, Any]:
    limit = {"unit": "day", "requests_per_unit": requests}
    return {"key": key, "quota_mode": True, "rate_limit": limit, "metadata": {"model": key}}


async def test_quotas_of_another_control_plane_in_clear(xds: FakeXds, serve: Serve) -> None:
    served = serve(xds, EXTAUTH_XDS_NODE_ID="envoy-ai-gateway-ratelimit")
    (first,) = await xds.until_requests(1)
    assert first.node.id == "envoy-ai-gateway-ratelimit"
    xds.push(response("1", config({"domain": "ai", "descriptors": [quota("k", 1), quota("l", 2)]})))
    await until_status(served, "ready")
    message = encode_request("ai", [read_descriptor("k=v"), read_descriptor("l=v")])
    assert await answers(served, message, message, message) == [OK, OK, OVER_LIMIT]  # once both are used up
    _, page = await asyncio.to_thread(served.get, "/rules")
    shown = [(rule["quota_mode"], rule["metadata"]) for rule in json.loads(page)["domains"][0]["descriptors"]]
    assert shown == [(True, {"model": "k"}), (True, {"model": "l"})]


SECRET = "acme-corporation", "other-corporation"


@pytest.mark.parametrize(
    ("settings", "more"),
    [({}, ()), ({"EXTAUTH_WORKERS": "2"}, ()), ({"EXTAUTH_COMPATIBLE": "true"}, ("/rlconfig", "/stats"))],
    ids=["plain", "workers", "compatible"],
)
async def test_values_of_keys_that_the_settings_call_secret_are_shown_nowhere(
    xds: FakeXds, serve: Serve, own_store: Store, settings: dict[str, str], more: tuple[str, ...]
) -> None:
    told = {"EXTAUTH_LOG_LEVEL": "debug", "EXTAUTH_DYNAMIC_METADATA": "true", "EXTAUTH_LOG_DESCRIPTORS": "true"}
    served = serve(xds, own_store, EXTAUTH_XDS_SECRET_KEYS="plan,customer", **told, **settings)
    await xds.until_requests(1)
    limit = {"unit": "day", "requests_per_unit": 1}
    rules = (
        {"key": "customer", "value": SECRET[0], "rate_limit": limit},
        {"key": "customer", "rate_limit": limit, "detailed_metric": True},
        {"key": "region", "value": "somewhere", "rate_limit": limit},
    )
    xds.push(response("1", config({"domain": "d", "descriptors": list(rules)})))
    await until_status(served, "ready")
    asked = [f"customer={SECRET[0]}", f"customer={SECRET[1]}", "region=somewhere"]
    messages = [encode_request("d", [read_descriptor(each)]) for each in asked for _ in range(2)]
    given = await whole_answers(served, *messages)
    assert [answer.code for answer in given] == [OK, OVER_LIMIT] * 3
    shown = {"answers": b"".join(answer.body for answer in given).decode("latin-1")}

    async def is_shown(path: str) -> bool:
        shown[path] = (await asyncio.to_thread(served.get, path))[1]
        return "somewhere" in shown[path]

    for path in ("/metrics", "/rules", "/top", *more):
        await until_async(lambda path=path: is_shown(path), lambda: shown, every_s=0.02)  # type: ignore[misc]
    await until_async(lambda: "somewhere" in served.log.read_text())
    shown["the log"] = served.log.read_text()
    assert "somewhere" in shown["answers"]
    for where, text in shown.items():
        assert not any(value in text for value in SECRET), where
        assert "***~" in text, where


@pytest.mark.parametrize("content", [b"", b"x" * 100, None], ids=["empty", "damaged", "cut"])
async def test_a_cache_that_is_damaged_is_reported_and_not_used(
    xds: FakeXds, serve: Serve, short_path: Path, content: bytes | None
) -> None:
    cache = short_path / "cache"
    write_cache(cache, [rules(1)], 1 << 20)
    cache.write_bytes(cache.read_bytes()[:-1] if content is None else content)
    served = serve(xds, EXTAUTH_CONFIG_CACHE=str(cache))
    assert "damaged" in str((await until_event(served, "config_cache_failed"))["reason"])
    await until_status(served, "starting")
