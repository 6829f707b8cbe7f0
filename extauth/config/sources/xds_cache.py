"""The file that keeps the last good rules of an xDS server, for a start without it.

A line with the SHA-256 of what follows, and then a DiscoveryResponse: what the server sent, so that it is checked again
when it is read.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from extauth.config.sources.discovery import Resource, decode_response, encode_response
from extauth.errors import InvalidRequestError, SourceError

_HEAD: Final = b"extauth xds rules 1 "
_DIGEST_CHARS: Final = 64


def read_cache(path: Path, most_bytes: int) -> tuple[Resource, ...] | None:
    """The resources in the file, None where there is no file; raises SourceError."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"it cannot be read: {error.strerror}") from None
    if len(content) > most_bytes:
        raise SourceError(f"it is larger than {most_bytes} bytes")
    head, _, message = content.partition(b"\n")
    if head != _HEAD + sha256(message).hexdigest().encode():
        raise SourceError("it is no such file, or it is damaged")
    try:
        return decode_response(message).resources
    except InvalidRequestError as error:
        raise SourceError(f"it cannot be decoded: {error}") from None


def write_cache(path: Path, resources: Iterable[bytes], most_bytes: int) -> None:
    """Replace the file in one step, for the service's user alone; raises SourceError."""
    message = encode_response(resources)
    if len(message) + len(_HEAD) + _DIGEST_CHARS + 1 > most_bytes:
        raise SourceError(f"the rules take more than {most_bytes} bytes")
    head = _HEAD + sha256(message).hexdigest().encode() + b"\n"
    part = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with suppress(FileNotFoundError):
            part.unlink()
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(head + message)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise SourceError(f"it cannot be written: {error.strerror}") from None
