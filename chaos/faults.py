"""The faults: what each does to a running stage, and what it may cost."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from chaos.stage import Stage, Way

Cause = Callable[[Stage], AbstractAsyncContextManager[None]]
"""Brings the fault about, and mends it at the end of the block."""

SHORT_S = 3.0
FEW = frozenset({"local", "deny"})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of `seconds`, or of as long as its cause takes, if that is longer.

    `forgets`: how often the store may lose what it knew. `replicas` are those that are hit themselves: direct calls to
    them may fail, and `lost` requests through Envoy may be uncounted, those on their way to them. `cut_off` are those
    that cannot reach the store, and `newcomers` those of them that know nothing of what was counted before.
    `normal_within_s`: how soon after its end calls must be counted together again. `policies`: under which it is
    caused, where another policy would show nothing more, or takes too long.
    """

    cause: Cause
    way: Way = Way.STRAIGHT
    seconds: float = SHORT_S
    forgets: float = 0
    replicas: frozenset[int] = frozenset()
    cut_off: frozenset[int] = frozenset({0, 1})
    newcomers: frozenset[int] = frozenset()
    lost: float = 0
    normal_within_s: float = 1.0
    policies: frozenset[str] = frozenset({"local", "allow", "deny", "error"})


Faults = Mapping[str, Fault]
