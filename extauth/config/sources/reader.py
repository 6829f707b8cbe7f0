"""Reads large configs in a process of their own, which gives all its memory back when it ends.

What reading them takes is several times what their rules take, and would be held as long as the service runs; and the
process that answers calls shares its interpreter with nothing that takes seconds.
"""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import IO

from extauth.config.many_objects import collector_off, map_large_tables
from extauth.config.sources.packed import unpack
from extauth.config.sources.selection import YAML, Selection
from extauth.errors import ConfigError, Diagnostic, Place
from extauth.rules.model import RuleSet

NO_RULES = 3
"""The exit code of a reader that found no rules at all, but problems."""

LENGTH = struct.Struct("!I")
"""Before each piece that a reader writes: its size."""

_MODULE = "extauth.config.sources"


def read_apart(path: Path, old: RuleSet, *, merge: bool, selection: Selection = YAML) -> RuleSet:
    """As `files.read_valid_domains`, in another process; raises OSError where there can be none, and ConfigError."""
    job = {
        "path": str(path),
        "merge": merge,
        "selection": astuple(selection),
        "old": {name: domain.files for name, domain in old.domains.items()},
    }
    map_large_tables()
    # A group of its own: an interrupt from the terminal is for the service alone.
    argv = [sys.executable, "-P", "-m", _MODULE]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, process_group=0) as process:  # noqa: S603 - no input's words
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(job).encode())
                process.stdin.close()
            first = next(pieces := _pieces(process.stdout), b"")  # which comes once all has been read
            with collector_off():
                rules = unpack(chain([first] if first else [], pieces), old.domains)
        except EOFError:
            rules = None
        except BaseException:
            process.kill()
            raise
    if rules is None:
        raise ConfigError([_ended_early(path, process.returncode)])
    if process.returncode == NO_RULES:
        raise ConfigError(rules.problems)
    return rules


def _ended_early(path: Path, code: int) -> Diagnostic:
    why = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    hint = "give the service more memory, or split its largest file by domain"
    return Diagnostic.error(Place(str(path)), f"cannot be read: the process that reads it ended early, {why}", hint)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces; the last one is followed by nothing. `unpack` raises EOFError where it is missing."""
    while len(head := stream.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        piece = stream.read(length)
        if len(piece) < length:
            return
        yield piece
