"""Takes from plain tuples, and limits to take from."""

from hypothesis import strategies as st

from extauth.limiter.counters import CounterSet, LimitCheck, Mode
from extauth.rules.model import Algorithm, Limit, Unit

Want = tuple[bytes, Limit, int] | tuple[bytes, Limit, int, Mode]
"""(a counter's name, its limit, the hits that a call asks for, and how: enforced where it does not say)."""


def take(*wants: Want) -> CounterSet:
    return CounterSet(tuple(want[0] for want in wants), tuple(LimitCheck(*want[1:]) for want in wants))


limits = st.builds(
    Limit,
    st.sampled_from([1, 3, 7, 10, 1000, 20_000]),
    st.sampled_from([Unit.SECOND, Unit.MINUTE]),
    st.sampled_from(Algorithm),
    count_denied=st.booleans(),
)
"""Limits of all algorithms, small and large."""
