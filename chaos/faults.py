"""The faults: what each does to a running stage, and what it may cost."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from chaos.stage import REPLICAS, Stage, Way

Cause = Callable[[Stage], AbstractAsyncContextManager[None]]
"""Brings the fault about, and mends it at the end of the block."""

SHORT_S = 3.0
LONGER_S = 6.0  # so that four replicas without limits would admit more than all of their shares
FEW = frozenset({"local", "deny"})


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault of `seconds`, or of as long as its cause takes, if that is longer.

    `forgets`: how often the store may lose what it knew. `replicas` are those that are hit themselves: direct calls to
    them may fail, and `lost` requests through Envoy may be uncounted, those on their way to them. `cut_off` are those
    of the stage's `replicas_in_all` that cannot reach the store, and `newcomers` those of them that know nothing of
    what was counted before. Of more than two replicas, each admits its part of a limit by itself
    (`EXTAUTH_LOCAL_SHARE=auto`). Each has so many `workers`. `normal_within_s`: how soon after its end calls must be
    counted together again. `policies`: under which it is caused, where another policy would show nothing more, or takes
    too long.
    """

    cause: Cause
    way: Way = Way.STRAIGHT
    replicas_in_all: int = REPLICAS
    workers: int = 1
    seconds: float = SHORT_S
    forgets: float = 0
    replicas: frozenset[int] = frozenset()
    cut_off: frozenset[int] = frozenset({0, 1})
    newcomers: frozenset[int] = frozenset()
    lost: float = 0
    normal_within_s: float = 1.0
    policies: frozenset[str] = frozenset({"local", "allow", "deny", "error"})

    @property
    def share(self) -> float:
        """The part of a limit that a replica admits by itself."""
        return 1 if self.replicas_in_all == REPLICAS else 1 / self.replicas_in_all


Faults = Mapping[str, Fault]
