"""Functions of the C library that this process runs with, some of which only glibc has."""

from functools import cache
from typing import Any


@cache
def c_function(name: str) -> Any:  # noqa: ANN401 - as ctypes has it
    """The function of this name; None where there is none."""
    import ctypes  # noqa: PLC0415 - half a megabyte, which only large or growing processes need

    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
