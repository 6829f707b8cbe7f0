"""What the Dockerfile says of the image, as far as that needs no container engine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.process import Served

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["EXTAUTH_ADMIN_LISTEN", "DEBUG_PORT"])
def test_its_health_check_passes_while_the_service_is_ready_and_fails_without_it(tmp_path: Path, name: str) -> None:
    assert 'CMD ["healthcheck"]' in DOCKERFILE

    def check(port: int) -> int:
        environ = os.environ | {"EXTAUTH_ADMIN_LISTEN": f"0.0.0.0:{free_port()}", "DEBUG_PORT": ""}
        environ |= {"http_proxy": f"http://127.0.0.1:{free_port()}", "no_proxy": ""}
        environ[name] = f"{environ[name].rpartition(':')[0]}:{port}".lstrip(":")
        argv = [sys.executable, str(ROOT / "deploy/image/healthcheck")]
        return subprocess.run(argv, env=environ, capture_output=True, check=False).returncode

    (tmp_path / "d.yaml").write_text("domain: d\n")
    served = Served(tmp_path, tmp_path / "d.yaml", settings={"EXTAUTH_REDIS_URL": "memory:"})
    try:
        served.until_ready()
        assert check(served.admin_port) == 0
    finally:
        served.stop()
    assert check(free_port()) != 0


def test_the_conformance_suite_s_messages_are_not_in_it() -> None:
    locked = (ROOT / "requirements/image.txt").read_text()
    assert "requirements/image.txt" in DOCKERFILE
    assert "envoy-data-plane" not in locked
    assert "typer" not in locked
