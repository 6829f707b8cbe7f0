"""Containers of the image as pods have it: a user without any rights, a read-only root, and probes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from docker.models.containers import Container

from tests.compose.project import Project
from tests.support.wait import until

CALL = json.dumps({"domain": "rl", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]})
STATUS = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], data=sys.argv[2].encode() or None, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@contextmanager
def pod(
    project: Project,
    command: list[str],
    environment: Mapping[str, str],
    volumes: Mapping[Path, str],
    network: str,
    *,
    kubernetes: bool = True,
) -> Iterator[Container]:
    """A container of the image; its logs are shown where a test fails.

    Kubernetes runs its `command` in place of the image's ENTRYPOINT, and Docker and Compose append theirs to that.
    """
    container = project.client.containers.run(
        f"{project.name}-extauth",
        detach=True,
        entrypoint=command if kubernetes else None,
        command=None if kubernetes else command,
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
