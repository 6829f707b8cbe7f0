"""What grpcurl finds out and calls with nothing but the server's reflection."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.process import Served
from tests.support.programs import missing

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
CONFIG = """
domain: api
descriptors: [{key: api_key, value: k, rate_limit: {unit: year, requests_per_unit: 10}}]
"""
CALL = {"domain": "api", "descriptors": [{"entries": [{"key": "api_key", "value": "k"}]}], "hits_addend": 3}


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Served]:
    if shutil.which("grpcurl") is None:
        missing("no grpcurl on PATH")
    config = folder / "api.yaml"
    config.write_text(CONFIG)
    listen = f"127.0.0.1:{free_port()}"
    settings |= {"EXTAUTH_REDIS_URL": "memory:", "EXTAUTH_GRPC_LISTEN": listen}
    running = Served(folder, config, settings=settings)
    running.address = listen
    running.until_ready()
    yield running
    running.stop()


@pytest.fixture(params=["h2", "grpcio"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, EXTAUTH_ENGINE=request.param) as running:
        yield running


def grpcurl(served: Served, *options: str, call: str = "") -> str:
    """What it prints; `call` is a method, `options` before the address else a verb after it."""
    words = ["-plaintext", *options, served.address, call] if call else ["-plaintext", served.address, *options]
    return subprocess.run(["grpcurl", *words], capture_output=True, text=True, timeout=60, check=True).stdout


def test_list(served: Served) -> None:
    services = grpcurl(served, "list").split()
    assert services == [
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    assert grpcurl(served, "list", SERVICE).split() == [f"{SERVICE}.ShouldRateLimit"]


def test_describe(served: Served) -> None:
    described = grpcurl(served, "describe")
    for service in grpcurl(served, "list").split():
        assert f"{service} is a service:" in described
    request = grpcurl(served, "describe", "envoy.service.ratelimit.v3.RateLimitRequest")
    assert "string domain = 1;" in request
    assert "google.protobuf.UInt64Value hits_addend" in grpcurl(
        served, "describe", "envoy.extensions.common.ratelimit.v3.RateLimitDescriptor"
    )


def test_a_call(served: Served) -> None:
    answer = json.loads(grpcurl(served, "-d", json.dumps(CALL), call=f"{SERVICE}/ShouldRateLimit"))
    assert answer["overallCode"] == "OK"
    [status] = answer["statuses"]
    assert (status["limitRemaining"], status["currentLimit"]) == (7, {"requestsPerUnit": 10, "unit": "YEAR"})
    health = json.loads(grpcurl(served, "-d", '{"service": ""}', call="grpc.health.v1.Health/Check"))
    assert health == {"status": "SERVING"}


def test_without_reflection(tmp_path: Path) -> None:
    with serving(tmp_path, EXTAUTH_REFLECTION="off") as running, pytest.raises(subprocess.CalledProcessError) as failed:
        grpcurl(running, "list")
    assert "does not support the reflection API" in failed.value.stderr
