"""The image in the place of envoyproxy/ratelimit's, in the pods that Istio and Contour make.

Their commands, variables, volumes and probes are as they are there, and the user has no rights at all.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.compose.pods import CALL, inside, pod, status, until_status
from tests.compose.project import Project
from tests.deploy.pages import container_on

pytestmark = pytest.mark.timeout(600)

RULES = """
domain: rl
descriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: %d}}]
"""


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


@pytest.mark.parametrize("command", ["/bin/ratelimit", "ratelimit"])
def test_the_command_of_a_compose_file(project: Project, command: str, tmp_path: Path) -> None:
    write_config_map(tmp_path, "1", 1)
    environment = {
        "REDIS_SOCKET_TYPE": "tcp",
        "REDIS_URL": "redis:6379",
        "RUNTIME_ROOT": "/data",
        "RUNTIME_SUBDIRECTORY": "ratelimit",
        "RUNTIME_WATCH_ROOT": "false",
        "USE_STATSD": "false",
    }
    volumes = {tmp_path: "/data/ratelimit/config"}
    with pod(project, [command], environment, volumes, f"{project.name}_store", kubernetes=False) as container:
        until_status(container, 200, "8080/healthcheck")
        assert [status(container, "8080/json", CALL) for _ in range(2)] == [200, 429]
