"""When `extauth serve` reports that it is ready."""

import json
import signal
from pathlib import Path

import pytest

from tests.integration.store_service import Service
from tests.support.codes import OK, OVER_LIMIT
from tests.support.stores import Store
from tests.support.wait import until


def readiness(service: Service) -> tuple[int, str, str]:
    """The status of `/readyz`, and what it says of the replica and of the store."""
    status, body = service.served.get("/readyz")
    detail = json.loads(body)
    return status, detail["status"], detail["store"].partition(":")[0]


async def stop(service: Service) -> None:
    """End its client, and the process."""
    await service.channel.close()
    service.served.stop()


async def test_it_is_not_ready_before_the_store_was_tried(short_path: Path, own_store: Store) -> None:
    own_store.signal(signal.SIGSTOP)
    service = Service(short_path, own_store.url, EXTAUTH_REDIS_TIMEOUT="60")
    try:
        service.served.until(lambda: service.served.get("/healthz")[0] == 200)
        assert readiness(service) == (503, "starting", "not checked yet")
        assert not (short_path / "grpc").exists(), "no call comes before"
        own_store.signal(signal.SIGCONT)
        service.served.until_ready()
        assert readiness(service) == (200, "ready", "up")
    finally:
        own_store.signal(signal.SIGCONT)
        await stop(service)


@pytest.mark.parametrize(
    ("policy", "answer"), [("allow", OK), ("deny", OVER_LIMIT), ("error", "UNAVAILABLE"), ("local", OK)]
)
async def test_without_its_store_it_is_ready_once_it_has_tried(
    short_path: Path, own_store: Store, policy: str, answer: int | str
) -> None:
    own_store.stop()
    service = Service(short_path, own_store.url, EXTAUTH_ON_STORE_FAILURE=policy)
    seen = []

    def ready() -> bool:
        try:
            seen.append(readiness(service))
        except OSError:
            return False
        return seen[-1][0] == 200

    try:
        until(ready, service.log.read_text)
        assert seen.pop() == (200, "ready", "down")
        assert set(seen) <= {(503, "starting", "not checked yet"), (503, "starting", "down")}
        assert await service.ask("tight") == answer
    finally:
        await stop(service)
