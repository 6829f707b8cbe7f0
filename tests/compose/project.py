"""The shipped compose.yml as a project of its own, in a copy of the checkout."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

ROOT = Path(__file__).resolve().parents[2]
# All but Grafana, whose image a machine without an image registry cannot stand in for.
SERVICES = ("redis", "extauth", "echo", "envoy", "prometheus")


def project_name(checkout: Path) -> str:
    """A name for the tests of one checkout: those of another on this machine must not take its containers for theirs.

    It is the same in each run, so that a run takes away what one before it left when it was killed.
    """
    return f"extauth-test-{hashlib.sha256(bytes(checkout.resolve())).hexdigest()[:12]}"


@dataclass(frozen=True)
class Project:
    """A Compose project and the folder that its compose.yml stands in."""

    folder: Path
    client: docker.DockerClient
    name: str = project_name(ROOT)

    def compose(self, *arguments: str) -> str:
        """Run `docker compose …`; returns its standard output, fails the test with the logs where it fails."""
        done = self._compose(*arguments)
        if done.returncode:
            logs = self._compose("logs", "--tail", "20").stdout
            pytest.fail(f"docker compose {' '.join(arguments)}:\n{done.stderr}\n{logs}", pytrace=False)
        return done.stdout

    def containers(self, *services: str) -> list[Container]:
        """The containers of these services, or of all, stopped ones too."""
        found = self.client.containers.list(all=True, filters={"label": f"com.docker.compose.project={self.name}"})
        return [one for one in found if not services or service(one) in services]

    def _compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", "--project-name", self.name, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)


def service(container: Container) -> str:
    """The name of its service in compose.yml."""
    return str(container.labels["com.docker.compose.service"])


def copy_checkout(target: Path) -> None:
    """What a clone would hold, with this checkout's edits."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
