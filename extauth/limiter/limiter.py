"""A batch of plans → one take → what became of each plan's calls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from extauth.errors import StoreError
from extauth.limiter.algorithms import Outcome, outcome
from extauth.limiter.counters import Ask, Counters, Group, Taken
from extauth.limiter.plan import Plan
from extauth.limiter.verdict import Code, DescriptorStatus, Verdict
from extauth.rules.model import Limit

NO_LIMIT = DescriptorStatus(Code.OK)


class OnStoreFailure(StrEnum):
    """What a call gets when the store does not answer."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class Settled(NamedTuple):
    """What became of `calls` equal calls: the first `taken.admitted` of them are within all limits.

    `taken` is None where the store failed.
    """

    plan: Plan
    calls: int
    taken: Taken | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decided batch, plans in the order in which they were asked; `store_error` is why some could not be counted."""

    settled: list[Settled]
    store_error: StoreError | None = None


class Limiter:
    """Decides batches of plans against the counters."""

    def __init__(self, counters: Counters, on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW) -> None:
        self._counters = counters
        self.on_store_failure = on_store_failure

    async def decide(self, calls: Mapping[Plan, int]) -> Decided:
        """Decide a batch, given as plan → number of its calls, as some serial order of them at one instant would.

        A batch in which nothing counts does not ask the store.
        """
        groups = [Group(plan, number) for plan, number in calls.items() if plan.names]
        error: StoreError | None = None
        takens: Iterator[Taken] = iter(())
        if groups:
            try:
                takens = iter(await self._counters.take(groups))
            except StoreError as store_error:
                error = store_error
        settled = []
        for plan, number in calls.items():
            if not plan.names:
                settled.append(Settled(plan, number, Taken(number, ())))
            else:
                settled.append(Settled(plan, number, None if error else next(takens)))
        return Decided(settled, error)

    def verdict(self, settled: Settled, call: int) -> Verdict | None:
        """The answer to the `call`-th (from 0) of the settled calls; None: the store failed, and so must the call."""
        plan, _, taken = settled
        if taken is None:
            return self._failed(plan)
        shape = plan.shape
        outcomes = [
            outcome(ask, level, call, taken.admitted) for ask, level in zip(plan.asks, taken.levels, strict=True)
        ]
        told = [
            DescriptorStatus(Code.OVER_LIMIT if o.over else Code.OK, ask.limit, o.remaining, o.reset_us)
            for o, ask in zip(outcomes, plan.asks, strict=True)
        ]
        statuses = tuple(NO_LIMIT if i is None else told[i] for i in shape.counter_of)
        if call < taken.admitted:
            return Verdict(Code.OK, statuses, shape.tier)
        return Verdict(Code.OVER_LIMIT, statuses, shape.tier, *longest_wait(plan.asks, outcomes))

    def _failed(self, plan: Plan) -> Verdict | None:
        if self.on_store_failure is OnStoreFailure.ERROR:
            return None
        code = Code.OVER_LIMIT if self.on_store_failure is OnStoreFailure.DENY else Code.OK
        statuses = tuple(NO_LIMIT if i is None else DescriptorStatus(code) for i in plan.shape.counter_of)
        return Verdict(code, statuses, plan.shape.tier)


def longest_wait(asks: Sequence[Ask], outcomes: Sequence[Outcome]) -> tuple[Limit, int | None]:
    """Of the limits that are over, the one that holds the caller back longest, and for how many µs (None: for ever)."""
    over = [(ask.limit, o.retry_after_us) for ask, o in zip(asks, outcomes, strict=True) if o.over]
    return max(over, key=lambda pair: (pair[1] is None, pair[1] or 0))
