"""A progress bar on a terminal."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from extauth.replay.log_file import LogFile

WIDTH = 30
EVERY_S = 0.1


class Progress:
    """Shows how much of the logs has been read; nothing where `out` is no terminal.

    The bar is there where the sizes of all logs are known, the number of lines always.
    """

    def __init__(self, logs: Sequence[LogFile], out: TextIO | None = None) -> None:
        self._out = sys.stderr if out is None else out
        self._logs = logs
        sizes = [log.size_bytes for log in logs]
        self._size = None if None in sizes else sum(size for size in sizes if size is not None)
        self._shows = self._out.isatty()
        self._next = 0.0

    def show(self) -> None:
        """Draw the bar, unless it was drawn just now."""
        if self._shows and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_S
            self._out.write(f"\r{self.text()}\x1b[K")
            self._out.flush()

    def text(self) -> str:
        """The bar as text."""
        lines = f"{sum(log.lines for log in self._logs):,} lines"
        if not self._size:
            return lines
        done = min(sum(log.read_bytes for log in self._logs) / self._size, 1)
        full = int(done * WIDTH)
        return f"[{'#' * full}{'.' * (WIDTH - full)}] {done:4.0%}  {lines}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shows:
            self._out.write("\r\x1b[K")
            self._out.flush()
