"""A batch of plans → one take → a batch of verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from extauth.errors import StoreError
from extauth.limiter.algorithms import Outcome, outcome
from extauth.limiter.counters import Counters, Group, Taken
from extauth.limiter.plan import Plan
from extauth.limiter.verdict import Code, DescriptorStatus, Labels, Verdict

NO_LIMIT = DescriptorStatus(Code.OK)


class OnStoreFailure(StrEnum):
    """What a call gets when the store does not answer."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class Tally(NamedTuple):
    """How many calls with these labels were allowed and how many denied."""

    labels: Labels
    allowed: int
    denied: int


@dataclass(frozen=True, slots=True)
class Decided:
    """A decided batch: a verdict a plan, in order, and what telemetry wants to know of it.

    `failed` calls could not be counted, because of `store_error`; under OnStoreFailure.ERROR their verdicts are None.
    """

    verdicts: list[Verdict | None]
    tallies: list[Tally]
    failed: int = 0
    store_error: StoreError | None = None


class Limiter:
    """Decides batches of plans against the counters."""

    def __init__(self, counters: Counters, on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW) -> None:
        self._counters = counters
        self.on_store_failure = on_store_failure

    async def decide(self, plans: Sequence[Plan]) -> Decided:
        """Decide a batch, as some serial order of its calls at one instant would.

        Calls with the same Plan are counted together, at the place of the first of them, in order of arrival. A batch
        in which nothing counts does not ask the store.
        """
        places: dict[int, list[int]] = {}
        for place, plan in enumerate(plans):
            places.setdefault(id(plan), []).append(place)
        counting = [at for at in places.values() if plans[at[0]].take.counters]
        error: StoreError | None = None
        taken: list[Taken] = []
        if counting:
            try:
                taken = await self._counters.take([Group(plans[at[0]].take, len(at)) for at in counting])
            except StoreError as store_error:
                error = store_error
        decided = Decided([None] * len(plans), [], sum(map(len, counting)) if error else 0, error)
        takens = iter(taken)
        for at in places.values():
            plan = plans[at[0]]
            if not plan.take.counters:
                self._settle(decided, plan, at, Taken(len(at), ()))
            elif error is None:
                self._settle(decided, plan, at, next(takens))
            else:
                self._settle_failed(decided, plan, at)
        return decided

    def _settle(self, decided: Decided, plan: Plan, at: list[int], taken: Taken) -> None:
        for call, place in enumerate(at):
            decided.verdicts[place] = _verdict(plan, taken, call)
        decided.tallies.append(Tally(plan.labels, taken.admitted, len(at) - taken.admitted))

    def _settle_failed(self, decided: Decided, plan: Plan, at: list[int]) -> None:
        if self.on_store_failure is OnStoreFailure.ERROR:
            return
        denied = self.on_store_failure is OnStoreFailure.DENY
        code = Code.OVER_LIMIT if denied else Code.OK
        statuses = tuple(NO_LIMIT if i is None else DescriptorStatus(code) for i in plan.counter_of)
        verdict = Verdict(code, statuses, plan.tier)
        for place in at:
            decided.verdicts[place] = verdict
        decided.tallies.append(Tally(plan.labels, 0 if denied else len(at), len(at) if denied else 0))


def _verdict(plan: Plan, taken: Taken, call: int) -> Verdict:
    counters = plan.take.counters
    outcomes = [
        outcome(counter, level, call, taken.admitted) for counter, level in zip(counters, taken.levels, strict=True)
    ]
    statuses = tuple(NO_LIMIT if i is None else _status(plan, i, outcomes[i]) for i in plan.counter_of)
    if call < taken.admitted:
        return Verdict(Code.OK, statuses, plan.tier)
    over = [(counter.limit, o) for counter, o in zip(counters, outcomes, strict=True) if o.over]
    limit, worst = max(over, key=lambda pair: (pair[1].retry_after_us is None, pair[1].retry_after_us or 0))
    return Verdict(Code.OVER_LIMIT, statuses, plan.tier, limit, worst.retry_after_us)


def _status(plan: Plan, i: int, o: Outcome) -> DescriptorStatus:
    code = Code.OVER_LIMIT if o.over else Code.OK
    return DescriptorStatus(code, plan.take.counters[i].limit, o.remaining, o.reset_us)
