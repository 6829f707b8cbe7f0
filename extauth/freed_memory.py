"""Gives memory back to the system that the C library keeps after it was freed."""

import asyncio
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from extauth.c_library import c_function

LOOK_S: Final = 5.0
MUCH_BYTES: Final = 32 << 20
_STATM: Final = Path("/proc/self/statm")
_FREE: Final = "fordblks"
_NUMBERS: Final = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", _FREE, "keepcost")
"""Of mallinfo2, which mallinfo(3) describes."""


class _Glibc(NamedTuple):
    free_bytes: Callable[[], int]
    """In blocks that are not in use, given back or not."""

    trim: Callable[[int], int]


class FreedMemory:
    """The memory of this process, with glibc on Linux; elsewhere there is nothing to do.

    After many half-sent bodies, say, blocks in use lie between free ones, and glibc keeps all of it: 80 MB of 150.
    """

    def __init__(self) -> None:
        self.known = _STATM.exists()
        self._least = resident_bytes() if self.known else 0

    def look(self) -> bool:
        """Give free memory back if it is much, and the process has grown by as much; returns whether it did.

        That takes some tens of milliseconds, in which other threads run, but may wait for memory for a few. Without a
        file descriptor to look with, nothing is done.
        """
        try:
            resident = resident_bytes()
        except OSError:
            return False
        self._least = min(self._least, resident)
        if resident - self._least < MUCH_BYTES:
            return False
        glibc = _glibc()
        self.known = glibc is not None
        if glibc is None or glibc.free_bytes() < MUCH_BYTES:
            return False
        glibc.trim(0)
        self._least = resident  # the next look has what is left
        return True


async def give_memory_back() -> None:
    """Look every few seconds, for ever."""
    memory = FreedMemory()
    while memory.known:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(memory.look)
    await asyncio.Event().wait()


def resident_bytes() -> int:
    """What this process takes up in memory (proc(5))."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _glibc() -> _Glibc | None:
    info, trim = c_function("mallinfo2"), c_function("malloc_trim")
    if info is None or trim is None:
        return None
    import ctypes  # noqa: PLC0415 - as in c_function

    class Mallinfo2(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in _NUMBERS]

    info.restype = Mallinfo2
    return _Glibc(lambda: int(getattr(info(), _FREE)), trim)
