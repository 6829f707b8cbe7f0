"""Processes that outlive the command which started them.

A pid alone is no name: it is used again after its process ended. So a pid file holds the pid and the time its process
started, and only a process that matches both is ours to stop.
"""

import contextlib
import os
import platform
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_POLL_S = 0.02


def _start_time(pid: int) -> str | None:
    """When the process started, in the system's own terms; None where it has ended (a zombie has)."""
    if platform.system() == "Linux":
        try:
            # proc(5), past the command's name, which may hold spaces and brackets: state is field 3, starttime 22.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    state, _, started = shown.stdout.strip().partition(" ")
    return started.strip() if state and not state.startswith("Z") else None


class Process:
    """One process of ours, known by its pid file."""

    def __init__(self, pid_file: Path, log: Path) -> None:
        self._pid_file = pid_file
        self.log = log
        self._child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        """Its pid while it runs, whoever started it."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        try:
            pid, _, started = self._pid_file.read_text().strip().partition(" ")
        except FileNotFoundError:
            return None
        return int(pid) if pid.isdecimal() and _start_time(int(pid)) == started else None

    def start(self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> None:
        """Start it in a session of its own, so that Ctrl-C in this terminal does not reach it."""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        partial = self._pid_file.with_suffix(".tmp")
        partial.write_text(f"{self._child.pid} {_start_time(self._child.pid)}\n")
        partial.replace(self._pid_file)

    def send(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal, if it runs."""
        if (pid := self.pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def wait(self, timeout_s: float = 15) -> int | None:
        """Wait for its end after a signal, and kill it if it still runs at the deadline.

        Returns the exit code, as subprocess writes it, where this very object started the process; else None.
        """
        if not self._ends_within(timeout_s) and (pid := self.pid()) is not None:
            os.killpg(pid, signal.SIGKILL)
            self._ends_within(timeout_s)
        self._pid_file.unlink(missing_ok=True)
        child, self._child = self._child, None
        return None if child is None else child.wait()

    def _ends_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16384))
                return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""
