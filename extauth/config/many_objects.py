"""Python's cycle collector and the C library's memory, where very many objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from extauth.c_library import c_function

LARGE_TABLE_BYTES: Final = 1 << 17
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # as malloc.h has them


@cache
def map_large_tables() -> None:
    """Have each large table's memory given back to the system with the table, for as long as the process runs.

    glibc begins so, but once a large table was freed it takes others from its heap, where what lies behind them keeps
    their memory. And have all threads share that heap: rules are read in one thread and freed in another. Other C
    libraries have no such settings.
    """
    mallopt = c_function("mallopt")
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_THRESHOLD, LARGE_TABLE_BYTES)
    mallopt(_TRIM_THRESHOLD, 16 * LARGE_TABLE_BYTES)  # to give back less than that costs more time than it is worth


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the collector from walking over what is made meanwhile, which must hold no cycles, then and later.

    It would do so in any thread that makes objects, the event loop's among them, for tens of milliseconds. Cycles that
    other threads make meanwhile are never found; there are few, and rules are seldom read.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def free_kept_objects() -> None:
    """Have Python free the objects that it keeps to use them again, for each of which a megabyte around it stays.

    It keeps thousands of tuples. Only when the collector looks at all objects does it free them: here at none, since
    what is there is never looked at from now on, as with `collector_off`.
    """
    if gc.isenabled():
        gc.freeze()
        gc.collect()
