"""What one call means for one counter."""

from typing import NamedTuple

# Debt, from limits that count denied hits, is cut off here (about 142 years), so that times stay exact in a double.
MAX_BACKLOG_US = 2**52
MAX_HITS = 2**53 - 1
# What uses at most this part of a limit need not be remembered: one over it.
SLIGHT = 16
# Calls that a level has room for where their number is not bounded.
ANY_NUMBER = 2**53


class Outcome(NamedTuple):
    """What one call means for one counter.

    `remaining` hits are left after it, 0 where it is `over`; `reset_us` until the bucket is full (gcra), the window
    ends (fixed_window) or is empty (sliding_window). `retry_after_us` until this cost fits, where it is over: None if
    it never will.
    """

    over: bool
    remaining: int
    reset_us: int
    retry_after_us: int | None = None


def calls_that_fit_in(left: int, cost: int) -> int:
    """Number of calls of `cost` hits that fit where `left` hits are left."""
    if cost < 0:
        return ANY_NUMBER
    if cost == 0:
        return ANY_NUMBER if left >= 1 else 0
    return max(left // cost, 0)


def share_of(hits: int, capacity: int, whole: int) -> int:
    """The hits of a limit of this capacity that are as large a part of it as `hits` are of `whole`, rounded up."""
    return hits if capacity == whole else -(-hits * capacity // whole)
