"""When calls come near a limit, so that most need not be looked at."""

from fractions import Fraction
from typing import NamedTuple

from extauth.limiter.counters import LimitCheck

NEVER = 2**63


class Watch(NamedTuple):
    """From where on a check's calls may come near its limit.

    They do not while the first number of the level, and `step` for each call, stay below `start`. Above `hits` a
    counter is near its limit.
    """

    start: int
    step: int
    hits: int


def watch(check: LimitCheck, ratio: Fraction) -> Watch:
    """What to watch for near the limit of a check: above floor(limit x ratio), as envoyproxy/ratelimit has it.

    Only calls that take hits come near a limit. Others are watched where they may be over it: those that ask for one.
    """
    hits = int(check.limit.capacity * ratio)
    if check.cost < 0:
        return Watch(NEVER, 0, hits)
    first_number = check.algorithm.first_number
    return Watch(first_number(hits), first_number(max(check.cost, 1)) + 1, hits)
