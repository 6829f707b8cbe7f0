"""Python's cycle collector, while very many objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
