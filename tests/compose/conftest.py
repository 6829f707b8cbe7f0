import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import docker
import pytest

from tests.compose.project import SERVICES, Project, copy_checkout
from tests.support.programs import missing


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """An engine with Compose v2, and the shipped ports free."""
    if os.environ.get("EXTAUTH_COMPOSE") == "0":
        pytest.skip("EXTAUTH_COMPOSE=0: no engine can be had here, so nothing says that compose.yml works")
    if shutil.which("docker") is None:
        missing("no docker command")
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode:
            missing(f"no Docker engine with Compose v2: {' '.join(command)}: {asked.stderr.strip()}")
    engine = docker.from_env()
    for port in (6070, 6071, 8080, 9090):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                engine.close()
                missing(f"port {port}, which compose.yml publishes, is taken")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def running(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """All but Grafana, healthy. Limits by the hour, so that a slow run refills nothing."""
    folder = tmp_path_factory.mktemp("checkout")
    copy_checkout(folder)
    rules = folder / "envoy/descriptors/api.yaml"
    rules.write_text(rules.read_text().replace("unit: minute", "unit: hour"))
    (folder / ".env").write_text("EXTAUTH_DENIAL_CACHE=0\n")  # what was denied is forgotten when the store is flushed
    project = Project(folder, client)
    try:
        project.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "120", *SERVICES)
        yield project
    finally:
        project.compose("down", "--volumes", "--remove-orphans", "--rmi", "local")


@pytest.fixture
def project(running: Project) -> Project:
    """The running project, in which nobody has used anything."""
    running.compose("exec", "-T", "redis", "redis-cli", "flushall")
    return running
