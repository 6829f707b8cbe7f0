"""The image in the pod that Envoy Gateway makes for envoyproxy/ratelimit, beside a control plane of go-control-plane.

The pod's command, variables, volumes and probes are as they are there. The control plane runs in another container of
the image, under the name of Envoy Gateway's Service, and only takes clients that have a certificate of its CA.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from docker.models.containers import Container

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from extauth.rls.response import Code, code_of
from tests.compose.pods import CALL, inside, pod, status, until_status
from tests.compose.project import Project
from tests.support.compatible import GATEWAY
from tests.support.go_xds import NODE, SOURCES, ServerFiles, XdsServer, arguments
from tests.support.real_clients import go_program
from tests.support.wait import until

pytestmark = pytest.mark.timeout(600)

PORT = 18001
CERTS = Path("/certs")
ENVIRONMENT = GATEWAY | {
    "RUNTIME_ROOT": "/data",
    "CONFIG_GRPC_XDS_SERVER_URL": f"envoy-gateway:{PORT}",
    "REDIS_SOCKET_TYPE": "tcp",
    "REDIS_URL": "redis:6379",
    "PROMETHEUS_ADDR": ":19001",
}
MESSAGE = encode_request("rl", [read_descriptor("k=v")])
CHANNEL = """
import grpc, pathlib, sys
credentials = grpc.ssl_channel_credentials(pathlib.Path("/certs/ca.crt").read_bytes())
channel = grpc.secure_channel("localhost:8081", credentials)
"""
HEALTH = f"""{CHANNEL}
from grpc_health.v1 import health_pb2, health_pb2_grpc
print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5).status)
"""
ASK = f"""{CHANNEL}
ask = channel.unary_unary("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit")
print(ask(bytes.fromhex(sys.argv[1]), timeout=5).hex())
"""


def rules(requests: int) -> dict[str, Any]:
    limit = {"unit": "year", "requests_per_unit": requests}
    return {"domain": "rl", "descriptors": [{"key": "k", "rate_limit": limit}]}


def issue(folder: Path, authority: trustme.CA, *names: str) -> Path:
    """A Secret with a certificate for these names, mounted in the folder."""
    folder.mkdir(mode=0o755)
    issued = authority.issue_cert(*names)
    for name, pem in (
        ("tls.crt", issued.cert_chain_pems[0]),
        ("tls.key", issued.private_key_pem),
        ("ca.crt", authority.cert_pem),
    ):
        pem.write_to_path(str(folder / name))
        (folder / name).chmod(0o644)
    return folder


@contextmanager
def control_plane(project: Project, secret: Path) -> Iterator[XdsServer]:
    """The xDS server, reached from the network of Redis, on which the pod is."""
    program = Path(go_program(SOURCES))
    name = f"{project.name}-xds"
    remove = ["docker", "rm", "--force", name]
    subprocess.run(remove, capture_output=True, check=False)  # which a run that was killed has left
    options = ["--name", name, "--network", f"{project.name}_store", "--network-alias", "envoy-gateway"]
    options += ["--user", "65534:65534", "--read-only", "--cap-drop", "ALL"]
    options += ["--volume", f"{program.parent}:/xds:ro", "--volume", f"{secret}:{CERTS}:ro"]
    command = ["--entrypoint", f"/xds/{program.name}", f"{project.name}-extauth"]
    command += arguments(f"0.0.0.0:{PORT}", NODE, ServerFiles(CERTS / "tls.crt", CERTS / "tls.key", CERTS / "ca.crt"))
    server = XdsServer(["docker", "run", "--rm", "--interactive", *options, *command])
    try:
        yield server
    finally:
        server.stop()
        subprocess.run(remove, capture_output=True, check=False)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ratelimit(project: Project, authority: trustme.CA, tmp_path: Path) -> Iterator[Container]:
    """The pod, which Envoy Gateway starts without any rules."""
    mapper = tmp_path / "statsd-exporter"
    mapper.mkdir(mode=0o755)
    secret = issue(tmp_path / "pod", authority, "envoy-ratelimit", "localhost")
    volumes = {secret: str(CERTS), mapper: "/etc/statsd-exporter"}
    with pod(project, ["/bin/ratelimit"], ENVIRONMENT, volumes, f"{project.name}_store") as container:
        yield container


def codes(container: Container, calls: int) -> list[Code]:
    """The codes of the answers to calls as Envoy makes them, over TLS."""
    found = []
    for _ in range(calls):
        code, printed = inside(container, "python", "-c", ASK, MESSAGE.hex())
        assert code == 0, printed
        found.append(code_of(bytes.fromhex(printed)))
    return found


def test_before_its_rules_are_there(ratelimit: Container) -> None:
    until_status(ratelimit, 200, "8080/healthcheck")
    assert inside(ratelimit, "python", "-c", HEALTH) == (0, "1\n")
    assert status(ratelimit, "8080/json", CALL) == 200
    assert status(ratelimit, "19001/metrics") == 200


def test_the_rules_of_its_control_plane(
    project: Project, authority: trustme.CA, tmp_path: Path, ratelimit: Container
) -> None:
    with control_plane(project, issue(tmp_path / "gateway", authority, "envoy-gateway")) as xds:
        until_status(ratelimit, 200, "8080/healthcheck")
        until(xds.requests, xds.events)
        assert codes(ratelimit, 1) == [Code.OK]
        xds.push("1", rules(1))
        assert xds.answer_to("1")["error"] == ""
        assert codes(ratelimit, 2) == [Code.OK, Code.OVER_LIMIT]
        assert status(ratelimit, "8080/json", CALL) == 429
        xds.push("2", rules(1000))
        assert xds.answer_to("2")["error"] == ""
        assert codes(ratelimit, 1) == [Code.OK]
        xds.push("3", rules(0))
        assert xds.answer_to("3")["error"] == ""
        assert codes(ratelimit, 1) == [Code.OVER_LIMIT]
        xds.push("4")
        assert xds.answer_to("4")["error"] == ""
        assert codes(ratelimit, 1) == [Code.OK]
