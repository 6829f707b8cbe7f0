"""What goes back for one call."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from extauth.rules.model import Limit


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


class Labels(NamedTuple):
    """What the metrics call a request: the route that its label descriptor named, and its tier; `none` without one."""

    path: str = "none"
    tier: str = "none"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a call.

    `tier` applied (None: no tier did). On OVER_LIMIT, `exceeded` is the limit that holds the caller back longest (None
    where the store failed and the answer is a blanket one), `retry_after_us` the wait until this call would fit (None:
    it never would, or nobody knows).
    """

    code: Code
    statuses: tuple[DescriptorStatus, ...]
    tier: str | None = None
    exceeded: Limit | None = None
    retry_after_us: int | None = None
