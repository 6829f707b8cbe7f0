"""How many file descriptors the process may have, and how many connections they are enough for."""

import resource
import sys
from typing import Final

RESERVED_DESCRIPTORS: Final = 128
"""For the store, the admin port, listeners, config files and their watch: clients of the gRPC port never get these."""


def raise_descriptors() -> int:
    """Raise the number of descriptors that this process may have as far as it may; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS has no limit, and refuses to set none
            return soft
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def fitting_connections(wanted: int, descriptors: int) -> int:
    """How many connections the descriptors are enough for: as many as are wanted, if what else is needed remains."""
    return min(wanted, max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2))
