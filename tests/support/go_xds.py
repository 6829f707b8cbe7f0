"""The xDS server of go-control-plane in tests/xds_server, as a process."""

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.ports import free_port
from tests.support.real_clients import go_program
from tests.support.wait import until
from tests.support.xds_messages import in_capitals

SOURCES = Path(__file__).resolve().parents[1] / "xds_server"
NODE = "envoy-ratelimit"


class ServerFiles(NamedTuple):
    """PEM files: the server's certificate and key, and the CAs of its clients."""

    cert: Path
    key: Path
    ca: Path


class XdsServer:
    """A server that a command starts, which has snapshots for one node; `events` are what it reports."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()
        until(lambda: self.events or self.process.poll() is not None, self.events)
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()

    def push(self, version: str, *configs: dict[str, Any]) -> None:
        """Set the snapshot: configs as files have them, whose resources have their domains' names."""
        named = [{"name": config["domain"], **in_capitals(config)} for config in configs]
        self._command({"version": version, "configs": named})

    def forget(self) -> None:
        """Remove the snapshot."""
        self._command({"forget": True})

    def requests(self) -> list[dict[str, Any]]:
        """The requests of all streams."""
        return [event for event in self.events if event["event"] == "request"]

    def answer_to(self, version: str) -> dict[str, Any]:
        """The request that answers this version, once there is one."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.requests() if each["version"] == version]

        until(found, lambda: self.events)
        return found()[-1]

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self._hearing.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _command(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))


class GoXds(XdsServer):
    """One on this host, which listens at `address`."""

    def __init__(self, files: ServerFiles | None = None, port: int | None = None, node: str = NODE) -> None:
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__([go_program(SOURCES), *arguments(self.address, node, files)])


def arguments(address: str, node: str, files: ServerFiles | None) -> list[str]:
    """What the program is told."""
    given = ["-listen", address, "-node", node]
    if files is not None:
        given += ["-cert", str(files.cert), "-key", str(files.key), "-ca", str(files.ca)]
    return given
