"""The version of this package."""

from functools import cache
from importlib import metadata


@cache
def own_version() -> str:
    """It is read from a file, once: later there may be no file descriptor left for that."""
    return metadata.version("extauth")
