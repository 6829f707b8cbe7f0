"""A client whose calls are answered is never cut off, whatever windows and PINGs its gRPC library sends."""

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port
from tests.support.process import Served
from tests.support.real_clients import CLIENTS, run_client
from tests.support.stores import Store

CONFIG = """
domain: api
algorithm: gcra
descriptors: [{key: api_key, rate_limit: {unit: second, requests_per_unit: 4000000000}}]
"""
SECONDS = float(os.environ.get("EXTAUTH_CLIENT_SECONDS", "5"))


@pytest.fixture
def served(own_store: Store, tmp_path: Path) -> Iterator[Served]:
    """A service on a port, that answers for as long as a busy machine needs."""
    config = tmp_path / "api.yaml"
    config.write_text(CONFIG)
    listen = f"127.0.0.1:{free_port()}"
    running = Served(
        own_store,
        config,
        settings={"EXTAUTH_GRPC_LISTEN": listen, "EXTAUTH_REDIS_TIMEOUT": "20", "EXTAUTH_ENGINE": "h2"},
    )
    running.address = listen
    yield running
    running.stop()


def counted(served: Served, name: str) -> float:
    """The sum of a metric's samples."""
    with urllib.request.urlopen(f"http://{served.admin}/metrics", timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


@pytest.mark.timeout(SECONDS + 400)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_real_client_gets_every_answer(served: Served, name: str) -> None:
    served.until_it_answers()
    counts = run_client(name, served.address, seconds=SECONDS)
    assert counts.failed == {}
    assert counts.ok > 300
    assert counted(served, "http_requests_total") == counts.ok
    assert counted(served, "extauth_guard_trips_total") == 0


def test_a_burst_of_python_calls_gets_every_answer(served: Served) -> None:
    """So many WINDOW_UPDATE frames come before the first answers that no allowance would do."""
    served.until_it_answers()
    counts = run_client("python", served.address, seconds=30, calls=30_000, concurrency=30_000)
    assert (counts.ok, counts.failed) == (30_000, {})
