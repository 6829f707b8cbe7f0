"""Real Redis-compatible servers for tests, on Unix sockets."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis

from scripts.stack import StackError, programs
from tests.support.programs import missing

SERVERS = ("valkey", "redis")


def _program(server: str) -> Path:
    if server == "redis":
        path = shutil.which("redis-server")
        return Path(path or missing("no redis-server on PATH (Debian: apt install redis-server)"))
    try:
        return programs.store()
    except StackError as error:
        missing(str(error))


class Store:
    """A server that keeps nothing on disk; `stop` and `start` make it forget everything."""

    def __init__(self, server: str, folder: Path, *arguments: str) -> None:
        self.program = _program(server)
        self.folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Store":
        """Start, and return when it answers."""
        argv = [self.program, *self._options()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url, protocol=2) as client:  # as servers before Redis 6 know alone
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, (self.folder / "log").read_text()
                    time.sleep(0.01)
                else:
                    return self

    @property
    def running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def _options(self) -> list[str | Path]:
        return ["--port", "0", "--unixsocket", self.socket, "--save", "", *self._arguments]

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End the process."""
        if self._process is not None:
            self._process.send_signal(sig)
            self._process.wait(20)
            self._process = None

    def signal(self, number: int) -> None:
        """Send the server a signal: to pause it, say."""
        assert self._process is not None
        self._process.send_signal(number)


class Sentinel(Store):
    """A server that watches over masters, and counts nothing."""

    def _options(self) -> list[str | Path]:
        config = self.folder / "sentinel.conf"  # which it wants, and rewrites
        config.write_text(f"port 0\nunixsocket {self.socket}\n")
        return [config, "--sentinel"]
