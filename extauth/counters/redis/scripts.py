"""The scripts that Redis runs, as the commands that run them."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

# Of each script, before its own file: each may use what those before it define.
_SHARED_FILES: Final = ("state", "limits", "gcra", "fixed_window", "sliding_window")


class Script:
    """A script's commands, without the array header."""

    def __init__(self, name: str, shared: Sequence[str] = _SHARED_FILES) -> None:
        folder = files("extauth.counters.redis") / "lua"
        text = b"\n".join((folder / f"{each}.lua").read_bytes() for each in (*shared, name))
        self.evalsha = bulk(b"EVALSHA") + bulk(sha1(text, usedforsecurity=False).hexdigest().encode())
        self.eval = bulk(b"EVAL") + bulk(text)


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def bulks(values: Sequence[bytes]) -> bytes:
    """Bulk strings, one after the other: several times faster if all have one length, as names of counters mostly."""
    if len(set(map(len, values))) != 1:
        return b"".join(map(bulk, values))
    head = b"$%d\r\n" % len(values[0])
    return head + (b"\r\n" + head).join(values) + b"\r\n"


def command(*words: bytes) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def run_of(keys: Sequence[bytes], arguments: Sequence[bytes]) -> tuple[bytes, bytes]:
    """A script's run: the array header, and what follows the script."""
    body = b"".join((bulk(b"%d" % len(keys)), *map(bulk, keys), *map(bulk, arguments)))
    return b"*%d\r\n" % (3 + len(keys) + len(arguments)), body
