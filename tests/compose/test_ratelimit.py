"""The image in the place of envoyproxy/ratelimit's, started as in the pods of Envoy Gateway, Istio and Contour."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from tests.compose.project import Project
from tests.support.wait import until

pytestmark = pytest.mark.timeout(600)

RULES = """
domain: rl
descriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 1}}]
"""
CALL = {"domain": "rl", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]}
POD = {
    "LOG_LEVEL": "debug",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis:6379",
    "USE_STATSD": "false",
    "RUNTIME_ROOT": "/data",
    "RUNTIME_SUBDIRECTORY": "ratelimit",
    "RUNTIME_WATCH_ROOT": "false",
    "RUNTIME_IGNOREDOTFILES": "true",
}
STATUS = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], data=sys.argv[2].encode() or None, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(params=[["/bin/ratelimit"], ["/bin/sh", "-c", "exec /bin/ratelimit"], ["ratelimit"]])
def pod(running: Project, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Container]:
    tmp_path.chmod(0o755)
    (tmp_path / "config.yaml").write_text(RULES)
    container = running.client.containers.run(
        f"{running.name}-extauth",
        detach=True,
        entrypoint=request.param,
        user="65534:65534",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network=f"{running.name}_store",
        environment=POD | {"CACHE_KEY_PREFIX": f"pod{len(request.param)}{len(request.param[0])}"},
        volumes={str(tmp_path): {"bind": "/data/ratelimit/config", "mode": "ro"}},
    )
    yield container
    container.remove(force=True)


def inside(container: Container, *command: str) -> tuple[int | None, str]:
    """Exit code and output of a command in the container."""
    done = container.exec_run(list(command))
    assert isinstance(done.output, bytes)
    return done.exit_code, done.output.decode()


def status(container: Container, path: str, body: str = "") -> int:
    """The status of a page at a port of the container; 0 while nobody listens."""
    code, printed = inside(container, "python", "-c", STATUS, f"http://127.0.0.1:{path}", body)
    return int(printed) if code == 0 else 0


def test_a_pod_serves_as_a_user_without_rights(pod: Container) -> None:
    until(lambda: status(pod, "8080/healthcheck") == 200, lambda: pod.logs().decode(), within_s=60, every_s=0.2)
    assert [status(pod, "8080/json", json.dumps(CALL)) for _ in range(2)] == [200, 429]
    assert status(pod, "6070/rlconfig") == 200
    assert inside(pod, "id", "-u") == (0, "65534\n")
    assert inside(pod, "touch", "/tmp/x")[0] != 0
    assert "compatible_mode" in pod.logs().decode()
    pod.stop(timeout=30)
    pod.reload()
    assert pod.attrs["State"]["ExitCode"] == 0
