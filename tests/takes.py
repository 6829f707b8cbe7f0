"""Takes from plain tuples."""

from extauth.limiter.counters import Ask, Take
from extauth.rules.model import Limit

Want = tuple[bytes, Limit, int]
"""(a counter's name, its limit, the hits that a call asks for)."""


def take(*wants: Want) -> Take:
    return Take(tuple(name for name, _, _ in wants), tuple(Ask(limit, cost) for _, limit, cost in wants))
