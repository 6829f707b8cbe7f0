"""Takes from plain tuples."""

from extauth.limiter.counters import CounterSet, LimitCheck, Mode
from extauth.rules.model import Limit

Want = tuple[bytes, Limit, int] | tuple[bytes, Limit, int, Mode]
"""(a counter's name, its limit, the hits that a call asks for, and how: enforced where it does not say)."""


def take(*wants: Want) -> CounterSet:
    return CounterSet(tuple(want[0] for want in wants), tuple(LimitCheck(*want[1:]) for want in wants))
