"""The command `extauth serve` as a process, on a Unix socket beside its store."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc

from tests.support.engine import ENGINE
from tests.support.stores import Store

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """One running service; `arguments` are those of `extauth serve`, `settings` its EXTAUTH_* variables."""

    def __init__(self, store: Store, config: Path, *arguments: str, **settings: str) -> None:
        self.address = f"unix:{store.folder}/grpc"
        self.admin = f"127.0.0.1:{free_port()}"
        environ = {
            **ENGINE,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "EXTAUTH_CONFIG": str(config),
            "EXTAUTH_REDIS_URL": store.url,
            "EXTAUTH_GRPC_LISTEN": self.address,
            "EXTAUTH_ADMIN_LISTEN": self.admin,
            "EXTAUTH_DRAIN_DELAY": "0",
        }
        argv = [sys.executable, "-m", "extauth", "serve", *arguments]
        self.process = subprocess.Popen(argv, env=environ | settings, stderr=subprocess.PIPE, stdout=subprocess.PIPE)

    def until_it_answers(self) -> None:
        """Return once it takes calls."""
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(30)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
