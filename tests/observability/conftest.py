import subprocess
import time
import urllib.error
from collections.abc import Iterator

import pytest

from scripts.stack import Ports, Stack
from tests.observability.tools import ROOT, get, program


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Prometheus that scrapes nothing."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    port = Ports.free().prometheus
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    get(port, "status/buildinfo")
                    break
                except (urllib.error.URLError, ConnectionError):
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"Prometheus does not start:\n{(folder / 'log').read_text()}", pytrace=False)
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The local stack with its Prometheus, as it is shipped, on free ports."""
    program("prometheus")
    stack = Stack(ROOT, tmp_path_factory.mktemp("stack"), ports=Ports.free())
    stack.up()
    yield stack
    stack.down()
