"""Takes from plain tuples."""

from extauth.limiter.counters import Ask, Mode, Take
from extauth.rules.model import Limit

Want = tuple[bytes, Limit, int] | tuple[bytes, Limit, int, Mode]
"""(a counter's name, its limit, the hits that a call asks for, and how: enforced where it does not say)."""


def take(*wants: Want) -> Take:
    return Take(tuple(want[0] for want in wants), tuple(Ask(*want[1:]) for want in wants))
