"""Reads logs line by line in bounded memory: files, pipes and standard input, each plain or gzip."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extauth.errors import CommandError

STDIN = Path("-")
MAX_LINE_BYTES = 1 << 20
MAX_SHOWN_PROBLEMS = 10
_CHUNK_BYTES = 1 << 18
_GZIP = b"\x1f\x8b"


class Problems:
    """The lines that could not be read: how many, and the first of them as `FILE:LINE: REASON`."""

    def __init__(self) -> None:
        self.number = 0
        self.shown: list[str] = []

    def add(self, file: str, line: int, reason: str) -> None:
        """Note a line."""
        self.number += 1
        if len(self.shown) < MAX_SHOWN_PROBLEMS:
            self.shown.append(f"{file}:{line}: {reason}")


class LogFile:
    """One log. `read_bytes` of its `size_bytes` (None: unknown) have been read, as they are in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = "<stdin>" if path == STDIN else str(path)
        self.size_bytes: int | None = path.stat().st_size if path != STDIN and path.is_file() else None
        self.read_bytes = 0
        self.lines = 0

    def read(self, problems: Problems) -> Iterator[tuple[int, bytes]]:
        """Each line's number, from 1, and its bytes; raises CommandError where the file cannot be opened."""
        with self._open() as raw:
            packed = raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            try:
                yield from self._lines(stream, raw, problems)
            except (OSError, EOFError, zlib.error) as error:
                problems.add(self.name, self.lines + 1, f"cannot be read on from here: {error}")

    @contextmanager
    def _open(self) -> Iterator[io.BufferedReader]:
        try:
            # Standard input stays open: it is not ours.
            file = os.dup(sys.stdin.fileno()) if self.path == STDIN else os.open(self.path, os.O_RDONLY)
            raw = os.fdopen(file, "rb")
        except OSError as error:
            raise CommandError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        with raw:
            yield raw

    def _lines(
        self, stream: io.BufferedReader | gzip.GzipFile, raw: io.BufferedReader, problems: Problems
    ) -> Iterator[tuple[int, bytes]]:
        rest, skipping = b"", False
        while chunk := stream.read1(_CHUNK_BYTES):  # `read` would lose what comes before a break in gzip
            self.read_bytes = raw.tell() if self.size_bytes is not None else self.read_bytes + len(chunk)
            pieces = (rest + chunk).split(b"\n")
            rest = pieces.pop()
            for piece in pieces:
                self.lines += 1
                if skipping:
                    skipping = False
                else:
                    yield self.lines, piece
            if len(rest) > MAX_LINE_BYTES:
                if not skipping:
                    problems.add(self.name, self.lines + 1, f"longer than {MAX_LINE_BYTES} bytes")
                rest, skipping = b"", True
        if rest and not skipping:
            self.lines += 1
            yield self.lines, rest
