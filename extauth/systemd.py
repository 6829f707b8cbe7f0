"""Reports the process's state to systemd, or to whoever else set NOTIFY_SOCKET (sd_notify(3))."""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from extauth.telemetry.logs import logger

SEND_TIMEOUT_S: Final = 0.1  # calls wait meanwhile, where the manager does not read


class ServiceManager:
    """The service manager of this process; each method does nothing where `environ` names none.

    `watchdog_s` is the period of its watchdog, or 0 where there is none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # in the abstract namespace
        self.watchdog_s = _watchdog_s(environ) if address else 0.0
        self._failed = False

    def ready(self) -> None:
        """The service has started, or has reloaded."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins, which `ready` ends."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service begins to stop."""
        self._send("STOPPING=1")

    async def keep_watchdog_quiet(self) -> None:
        """Report twice in each period of the watchdog, for ever, that the event loop still turns."""
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_TIMEOUT_S)
                sock.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger().warning("notify_failed", reason=f"NOTIFY_SOCKET cannot be written to: {error}")


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Seconds after which the watchdog acts, or 0 if it does not watch this process (sd_watchdog_enabled(3))."""
    period_us = environ.get("WATCHDOG_USEC", "")
    if not period_us.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(period_us) / 1_000_000
