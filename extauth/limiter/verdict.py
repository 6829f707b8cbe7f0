"""Which of several limits a status, and a denial, is about."""

from collections.abc import Sequence
from typing import NamedTuple

from extauth.limiter.algorithms import Outcome
from extauth.limiter.counters import LimitCheck, Mode
from extauth.rls.response import Code, DenyingLimit

# On Python 3.11 it takes as long to look a member of an Enum up as to call a function.
_ENFORCED, _QUOTA, _SAME_QUOTA, _SHADOW = Mode.ENFORCED, Mode.QUOTA, Mode.SAME_QUOTA, Mode.SHADOW
_OK, _OVER_LIMIT = Code.OK, Code.OVER_LIMIT


class Labels(NamedTuple):
    """What the metrics call a request: the route that its label descriptor named, and its tier; `none` without one."""

    path: str = "none"
    tier: str = "none"


def status_code(check: LimitCheck, outcome: Outcome) -> Code:
    """The code that a descriptor's status has for one limit."""
    return _OVER_LIMIT if outcome.over and check.mode is not _SHADOW else _OK


def tightest_limit(checks: Sequence[LimitCheck], outcomes: Sequence[Outcome], indices: Sequence[int]) -> int:
    """Of several limits of one descriptor, the one that its status tells of.

    One that is over before one that is not, then the one that lets the caller wait longest, or leaves least.
    """
    if len(indices) == 1:
        return indices[0]
    return max(indices, key=lambda i: (status_code(checks[i], outcomes[i]), *_tightness(outcomes[i])))


def denying_limit(checks: Sequence[LimitCheck], outcomes: Sequence[Outcome]) -> DenyingLimit:
    """Why a call is denied.

    Every enforced limit must have room, and one of the quotas: of these, the one that has room first.
    """
    if len(checks) == 1:
        return DenyingLimit(checks[0].limit, outcomes[0].retry_after_us, outcomes[0].reset_us)
    over: list[int] = []  # enforced limits
    quotas: list[list[int]] = []  # each quota's limits
    for i, (check, outcome) in enumerate(zip(checks, outcomes, strict=True)):
        if check.mode is _QUOTA:
            quotas.append([])
        if check.mode in {_QUOTA, _SAME_QUOTA} and outcome.over:
            quotas[-1].append(i)
        elif check.mode is _ENFORCED and outcome.over:
            over.append(i)

    def tightness(i: int) -> tuple[bool, int, int, int]:
        return _tightness(outcomes[i])

    if quotas and all(quotas):
        over.append(min((max(quota, key=tightness) for quota in quotas), key=tightness))
    if not over:
        # The store counts in doubles: of limits beyond 2**53 ticks it may see none left where there is exactly room.
        return DenyingLimit(checks[0].limit, 1, outcomes[0].reset_us)
    longest = max(over, key=tightness)
    return DenyingLimit(checks[longest].limit, outcomes[longest].retry_after_us, outcomes[longest].reset_us)


def _tightness(outcome: Outcome) -> tuple[bool, int, int, int]:
    wait_us = outcome.retry_after_us
    never = outcome.over and wait_us is None
    return never, wait_us or 0, -outcome.remaining, outcome.reset_us
