"""The process of a worker, which `process.py` starts: `python -m extauth.workers DESCRIPTOR DESCRIPTOR NUMBER …`."""

import asyncio
import os
import signal
import socket
import sys

from extauth.lifecycle import loop_factory
from extauth.settings import read_settings
from extauth.workers.worker import Post, work


def main(arguments: list[str]) -> None:
    """Run until the parent says that it is enough, or is gone."""
    # Who signals all processes of a service, as systemd does, means its parent, which ends its workers in order.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    channel, handed, number, workers, name = arguments
    post = Post(socket.socket(fileno=int(channel)), socket.socket(fileno=int(handed)), int(number), int(workers), name)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(read_settings(os.environ), dict(os.environ), post))


if __name__ == "__main__":
    main(sys.argv[1:])
