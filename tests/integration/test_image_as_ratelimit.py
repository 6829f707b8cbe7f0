"""The image's /bin/ratelimit, started as Envoy Gateway, Istio and Contour start envoyproxy/ratelimit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE
from tests.support.codes import OK, OVER_LIMIT
from tests.support.ports import free_port
from tests.support.process import page
from tests.support.programs import missing
from tests.support.stores import Store
from tests.support.wait import until

ROOT = Path(__file__).parents[2]
IMAGE = {
    "EXTAUTH_CONFIG": "/etc/extauth",
    "EXTAUTH_GRPC_LISTEN": "0.0.0.0:8081",
    "EXTAUTH_ADMIN_LISTEN": "0.0.0.0:6070",
}
RULES = """
domain: rl
descriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 1}}]
"""
CALL = encode_request("rl", [read_descriptor("k=v")])
# A pod's securityContext: every mount is read-only, /tmp too, there are no capabilities, and none can be had.
CONFINED = """
for folder in / /tmp /var/tmp /dev/shm; do
  mount --bind "$folder" "$folder" && mount -o remount,bind,ro "$folder" || exit 99
done
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def test_the_image_s_own_settings_are_those_that_its_ratelimit_takes_back() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, value in IMAGE.items():
        assert f"{name}={value}" in dockerfile


@dataclass
class Started:
    """A running server, and its ports for probes, for gRPC and for operators."""

    log: Path
    http: int = field(default_factory=free_port)
    grpc: int = field(default_factory=free_port)
    debug: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def code(self) -> int:
        """The overall code of the answer to a call."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
            return int(RateLimitResponse.parse(ask(CALL, timeout=10)).overall_code)

    def is_healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return page(self.http, "/healthcheck")[0] == 200
        except OSError:
            return False


@pytest.fixture
def started(own_store: Store, tmp_path: Path) -> Iterator[Started]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("read-only mounts of its own need Linux and root")
    for tool in ("unshare", "setpriv"):
        if shutil.which(tool) is None:
            missing(f"no {tool} on PATH")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    shutil.copy(ROOT / "deploy/image/ratelimit", binaries)
    (binaries / "extauth").symlink_to(Path(sys.executable).parent / "extauth")
    runtime = tmp_path / "data/ratelimit/config"
    runtime.mkdir(parents=True)
    (runtime / "config.yaml").write_text(RULES)
    server = Started(tmp_path / "log")
    environ = {
        **IMAGE,
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "RUNTIME_ROOT": str(tmp_path / "data"),
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
        "RUNTIME_IGNOREDOTFILES": "true",
        "REDIS_SOCKET_TYPE": "tcp" if own_store.url.startswith("redis://") else "unix",
        "REDIS_URL": own_store.url.removeprefix("redis://").removeprefix("unix://").partition("?")[0],
        "USE_STATSD": "false",
        "USE_PROMETHEUS": "true",
        "LOG_LEVEL": "debug",
        "HOST": "127.0.0.1",
        "PORT": str(server.http),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(server.grpc),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(server.debug),
        "PROMETHEUS_ADDR": f"127.0.0.1:{free_port()}",
    }
    argv = ["unshare", "--mount", "sh", "-c", CONFINED, "sh", "sh", "-c", f"exec {binaries}/ratelimit"]
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
    yield server
    server.process.terminate()
    assert server.process.wait(30) == 0, server.log.read_text()


@pytest.mark.timeout(120)
def test_it_serves_with_read_only_mounts_and_no_capabilities(started: Started) -> None:
    until(started.is_healthy, "it is healthy")
    assert [started.code() for _ in range(2)] == [OK, OVER_LIMIT]
    assert "rl.k: " in page(started.debug, "/rlconfig")[1]
    status = Path(f"/proc/{started.process.pid}/status").read_text() if started.process else ""
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
