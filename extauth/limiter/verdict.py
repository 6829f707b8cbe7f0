"""What goes back for one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from extauth.limiter.algorithms import Outcome
from extauth.limiter.counters import Ask, Mode
from extauth.rules.model import Limit

NO_LIMIT_REMAINING = 2**32 - 1


class Code(IntEnum):
    """`RateLimitResponse.Code`."""

    OK = 1
    OVER_LIMIT = 2


class DescriptorStatus(NamedTuple):
    """`RateLimitResponse.DescriptorStatus`: one a descriptor of the request, in its order.

    `limit` is None where no limit applied: Envoy then passes the status over. `reset_us` is the time until the limit
    is whole again.
    """

    code: Code
    limit: Limit | None = None
    remaining: int = 0
    reset_us: int = 0


NO_LIMIT = DescriptorStatus(Code.OK)
UNLIMITED = DescriptorStatus(Code.OK, remaining=NO_LIMIT_REMAINING)


class Labels(NamedTuple):
    """What the metrics call a request: the route that its label descriptor named, and its tier; `none` without one."""

    path: str = "none"
    tier: str = "none"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a call.

    `tier` applied (None: no tier did). On OVER_LIMIT, `exceeded` is the limit that holds the caller back longest (None
    where the store failed and the answer is a blanket one), `retry_after_us` the wait until this call would fit (None:
    it never would, or nobody knows). `metadata` is for the answer's `dynamic_metadata`, where that was asked for.
    """

    code: Code
    statuses: tuple[DescriptorStatus, ...]
    tier: str | None = None
    exceeded: Limit | None = None
    retry_after_us: int | None = None
    metadata: Mapping[str, Any] | None = None


def tells(ask: Ask, outcome: Outcome) -> Code:
    """The code that is told of one limit."""
    return Code.OVER_LIMIT if outcome.over and ask.mode is not Mode.SHADOW else Code.OK


def tightest(asks: Sequence[Ask], outcomes: Sequence[Outcome], indices: Sequence[int]) -> int:
    """Of several limits of one descriptor, the one that its status tells of.

    One that is over before one that is not, then the one that lets the caller wait longest, or leaves least.
    """
    if len(indices) == 1:
        return indices[0]
    return max(indices, key=lambda i: (tells(asks[i], outcomes[i]), *_tightness(outcomes[i])))


def _tightness(outcome: Outcome) -> tuple[bool, int, int, int]:
    wait_us = outcome.retry_after_us
    never = outcome.over and wait_us is None
    return never, wait_us or 0, -outcome.remaining, outcome.reset_us


def held_back_by(asks: Sequence[Ask], outcomes: Sequence[Outcome]) -> tuple[Limit, int | None]:
    """Why a call is denied: the limit that holds the caller back longest, and for how many µs (None: for ever).

    All enforced limits must have room, and one of the quotas.
    """
    if len(asks) == 1:
        return asks[0].limit, outcomes[0].retry_after_us
    over = [(ask, o) for ask, o in zip(asks, outcomes, strict=True) if o.over]
    waits = [(ask.limit, o.retry_after_us) for ask, o in over if ask.mode is Mode.ENFORCED]
    quotas = [(ask.limit, o.retry_after_us) for ask, o in over if ask.mode in {Mode.QUOTA, Mode.QUOTA_TOO}]
    if quotas and not any(ask.mode is Mode.QUOTA and not o.over for ask, o in zip(asks, outcomes, strict=True)):
        waits.append(min(quotas, key=_wait))
    # The store counts in doubles: of limits beyond 2**53 ticks it may see none left where there is exactly room.
    return max(waits, key=_wait, default=(asks[0].limit, 1))


def _wait(wait: tuple[Limit, int | None]) -> tuple[bool, int]:
    return wait[1] is None, wait[1] or 0
