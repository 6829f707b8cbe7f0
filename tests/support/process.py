"""The command `extauth serve` as a process."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import grpc

from tests.support.environ import INHERITED
from tests.support.ports import free_port
from tests.support.stores import Store
from tests.support.wait import until

ROOT = Path(__file__).parents[2]


def page(port: int, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a page at a port of 127.0.0.1, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def until_of(process: "subprocess.Popen[bytes]", log: Path, holds: Callable[[], bool]) -> None:
    """Wait until it holds, for as long as the process runs; an OSError means that it does not hold yet."""

    def now() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return holds()
        except OSError:
            return False

    until(now, log.read_text)


class Served:
    """A running service on a Unix socket in `folder`, with its log there.

    `beside` is its store, or only a folder. `arguments` are those of `extauth serve`. `settings` are its EXTAUTH_*
    variables, and win over those set here. `prepare` runs in the process before the service does.
    """

    def __init__(
        self,
        beside: Store | Path,
        config: Path,
        *arguments: str,
        settings: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        if isinstance(beside, Store):
            self.folder, redis = folder or beside.folder, {"EXTAUTH_REDIS_URL": beside.url}
        else:
            self.folder, redis = beside, {}
        self.admin_port = free_port()
        self.admin = f"127.0.0.1:{self.admin_port}"
        self.log = self.folder / "serve.log"
        environ = {
            **INHERITED,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "EXTAUTH_CONFIG": str(config),
            **redis,
            "EXTAUTH_GRPC_LISTEN": f"unix:{self.folder}/grpc",
            "EXTAUTH_ADMIN_LISTEN": self.admin,
            "EXTAUTH_DRAIN_DELAY": "0",
        } | dict(settings)
        self.address = environ["EXTAUTH_GRPC_LISTEN"]
        argv = [sys.executable, "-m", "extauth", "serve", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, preexec_fn=prepare)  # noqa: PLW1509

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the admin server."""
        return page(self.admin_port, path)

    def until(self, holds: Callable[[], bool]) -> None:
        """As until_of."""
        until_of(self.process, self.log, holds)

    def until_ready(self) -> None:
        """Return once its admin server says that it is ready."""
        self.until(lambda: self.get("/readyz")[0] == 200)

    def until_it_answers(self) -> None:
        """Return once it takes calls."""
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(30)

    def lines(self) -> list[dict[str, object]]:
        """The log, where it is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


@contextmanager
def served_with(store: Store, config: str) -> Iterator[Callable[..., Served]]:
    """What starts services with their settings, each in a folder of its own beside the store; they end together."""
    started: list[Served] = []

    def start(**settings: str) -> Served:
        folder = store.folder / f"serve{len(started)}"
        folder.mkdir()
        path = folder / "api.yaml"
        path.write_text(config)
        started.append(Served(store, path, folder=folder, settings=settings))
        return started[-1]

    try:
        yield start
    finally:
        for served in started:
            served.stop()
