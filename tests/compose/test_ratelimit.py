"""The image in the place of envoyproxy/ratelimit's, in the pods that Envoy Gateway, Istio and Contour make.

Their commands, variables, volumes and probes are as they are there, and the user has no rights at all.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from docker.models.containers import Container

from tests.compose.project import Project
from tests.deploy.pages import container_on
from tests.support.compatible import GATEWAY
from tests.support.wait import until

pytestmark = pytest.mark.timeout(600)

RULES = """
domain: rl
descriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: %d}}]
"""
CALL = json.dumps({"domain": "rl", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]})
ENVOY_GATEWAY = GATEWAY | {
    "RUNTIME_ROOT": "/data",
    "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway:18001",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis:6379",
    "PROMETHEUS_ADDR": ":19001",
}
STATUS = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], data=sys.argv[2].encode() or None, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
HEALTH = """
import grpc, pathlib
from grpc_health.v1 import health_pb2, health_pb2_grpc
credentials = grpc.ssl_channel_credentials(pathlib.Path("/certs/ca.crt").read_bytes())
with grpc.secure_channel("localhost:8081", credentials) as channel:
    print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status)
"""


@contextmanager
def pod(
    project: Project, command: list[str], environment: Mapping[str, str], volumes: Mapping[Path, str], network: str
) -> Iterator[Container]:
    """A container of the image; its logs are shown where a test fails."""
    container = project.client.containers.run(
        f"{project.name}-extauth",
        detach=True,
        entrypoint=command,
        user="65534:65534",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        environment=dict(environment),
        volumes={str(path): {"bind": target, "mode": "ro"} for path, target in volumes.items()},
        network_mode=network,
    )
    try:
        yield container
        container.stop(timeout=30)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
    finally:
        print(container.logs().decode())
        container.remove(force=True)


def inside(container: Container, *command: str) -> tuple[int | None, str]:
    """Exit code and output of a command in the container."""
    done = container.exec_run(list(command))
    assert isinstance(done.output, bytes)
    return done.exit_code, done.output.decode()


def status(container: Container, path: str, body: str = "") -> int:
    """The status of a page at a port of the container; 0 while nobody listens."""
    code, printed = inside(container, "python", "-c", STATUS, f"http://localhost:{path}", body)
    return int(printed) if code == 0 else 0


def until_status(container: Container, wanted: int, path: str, body: str = "") -> None:
    until(lambda: status(container, path, body) == wanted, f"{path}: {wanted}", within_s=60, every_s=0.2)


def write_config_map(folder: Path, version: str, limit: int) -> None:
    """Put a version of the rules in place as the kubelet does: all at once, by a symlink."""
    folder.chmod(0o755)
    (folder / f"..{version}").mkdir(mode=0o755)
    (folder / f"..{version}" / "config.yaml").write_text(RULES % limit)
    (folder / "..new").symlink_to(f"..{version}")
    (folder / "..new").replace(folder / "..data")
    if not (folder / "config.yaml").is_symlink():
        (folder / "config.yaml").symlink_to("..data/config.yaml")


def network_of(project: Project, page: str) -> str:
    """Contour's pod holds Redis as well, so they share what is localhost."""
    if page == "contour":
        [redis] = project.containers("redis")
        return f"container:{redis.id}"
    return f"{project.name}_store"


@pytest.mark.parametrize("command", [None, ["/bin/sh", "-c", "exec /bin/ratelimit"], ["ratelimit"]])
@pytest.mark.parametrize("page", ["istio", "contour"])
def test_istio_and_contour(project: Project, page: str, command: list[str] | None, tmp_path: Path) -> None:
    one: dict[str, Any] = container_on(page)
    environment = {variable["name"]: variable["value"] for variable in one["env"]}
    [mount] = one["volumeMounts"]
    write_config_map(tmp_path, "1", 1)
    volumes = {tmp_path: mount["mountPath"]}
    with pod(project, command or one["command"], environment, volumes, network_of(project, page)) as container:
        until_status(container, 200, "8080/healthcheck")
        assert [status(container, "8080/json", CALL) for _ in range(2)] == [200, 429]
        assert status(container, "6070/rlconfig") == 200
        assert inside(container, "id", "-u") == (0, "65534\n")
        assert inside(container, "touch", "/tmp/x")[0] != 0
        write_config_map(tmp_path, "2", 1000)
        until_status(container, 200, "8080/json", CALL)


def test_envoy_gateway_before_its_rules_are_there(project: Project, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    for name, pem in (
        ("tls.crt", certificate.cert_chain_pems[0]),
        ("tls.key", certificate.private_key_pem),
        ("ca.crt", authority.cert_pem),
    ):
        pem.write_to_path(str(tmp_path / name))
        (tmp_path / name).chmod(0o644)
    tmp_path.chmod(0o755)
    network = f"{project.name}_store"
    with pod(project, ["/bin/ratelimit"], ENVOY_GATEWAY, {tmp_path: "/certs"}, network) as container:
        until_status(container, 200, "8080/healthcheck")
        assert inside(container, "python", "-c", HEALTH) == (0, "1\n")
        assert status(container, "8080/json", CALL) == 200
        assert status(container, "19001/metrics") == 200
