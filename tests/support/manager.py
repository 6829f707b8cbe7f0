"""A service manager, as far as sd_notify(3) sees it: a datagram socket that collects what is reported."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class Manager:
    """Collects reports at `address`, which is what NOTIFY_SOCKET is to be: a path, or `@` and an abstract name."""

    def __init__(self, address: str, listener: socket.socket) -> None:
        self.address = address
        self._listener = listener
        self._reports: list[dict[str, str]] = []

    def reports(self) -> list[dict[str, str]]:
        """The reports so far, each with its assignments."""
        while True:
            try:
                data = self._listener.recv(4096)
            except BlockingIOError:
                return self._reports
            self._reports.append(dict(line.split("=", 1) for line in data.decode().splitlines()))

    def states(self) -> list[str]:
        """What they report, without the watchdog's."""
        return [next(iter(report)) for report in self.reports() if "WATCHDOG" not in report]


@contextmanager
def managing(address: str) -> Iterator[Manager]:
    """A manager until the block ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.setblocking(False)
        yield Manager(address, listener)
