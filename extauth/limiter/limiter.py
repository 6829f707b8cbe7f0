"""Decides a batch: from plans to one take, and from its result to the verdict of each call."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from extauth.errors import StoreError
from extauth.limiter.algorithms import Outcome
from extauth.limiter.counters import Group, PartlyCounted, ShardedCounters, Source, Taken, TakeResult, Uncounted
from extauth.limiter.facts import BatchResult, GroupResult, denied_of
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.plan import UNLIMITED_AT, Plan
from extauth.limiter.verdict import denying_limit, status_code, tightest_limit
from extauth.rls.response import NO_LIMIT, UNLIMITED, Code, DescriptorStatus, Verdict
from extauth.rules.model import OnStoreFailure

_NO_COUNTER = Source.NO_COUNTER  # on Python 3.11 it takes as long to look a member up as to call a function
_ALL_COUNTED: Final = {TakeResult}
_admitted: Callable[[Any], int] = itemgetter(0)
_new = tuple.__new__  # the constructor of a NamedTuple is a Python function, which takes twice as long


class Limiter:
    """Decides batches of plans against the counters."""

    def __init__(self, counters: ShardedCounters, policy: FailurePolicy | None = None) -> None:
        self._counters = counters
        self.policy = policy or FailurePolicy(OnStoreFailure.ALLOW)

    async def decide(self, calls: Mapping[Plan, int]) -> BatchResult:
        """Decide a batch, given as plan → number of its calls, as some serial order of them at one instant would.

        A batch in which nothing counts does not ask the store.
        """
        groups = [_new(Group, each) for each in calls.items() if each[0].names]
        error: StoreError | None = None
        takens: Iterable[Taken] = ()
        if groups:
            try:
                takens = taken_all = await self._counters.take(groups)
            except StoreError as store_error:
                error = store_error.with_traceback(None)  # which would refer back to this frame, and keep the batch
            except Exception as unexpected:  # noqa: BLE001 - whatever it is, the calls get what they get without a store
                error = StoreError.unexpected(unexpected)
            if error is not None:
                takens = repeat(Uncounted.of(sent=error.sent))
            elif len(taken_all) == len(calls) and set(map(type, taken_all)) == _ALL_COUNTED:
                return _counted(calls, taken_all)
        return self._decided(calls, iter(takens), error)

    def _decided(self, calls: Mapping[Plan, int], takens: Iterator[Taken], error: StoreError | None) -> BatchResult:
        """The result of a batch, with what the counters say of those plans that have any."""
        results = []
        for plan, number in calls.items():
            taken = next(takens) if plan.names else TakeResult(number, (), _NO_COUNTER)
            if isinstance(taken, TakeResult):
                results.append(GroupResult(plan, number, taken))
            elif isinstance(taken, PartlyCounted):
                results.append(self.policy.complete(plan, number, taken))
            else:
                assert isinstance(taken, Uncounted)  # noqa: S101 - for the type checker
                results.append(self.uncounted(plan, number, taken))
        return BatchResult(results, denied_of(results), all_counted=False, store_error=error)

    def uncounted(self, plan: Plan, calls: int, how: Uncounted) -> GroupResult:
        """The result for calls that the store did not count, or not in time: what the failure policy gives them."""
        return self.policy.decide(plan, calls, how)

    def verdict(self, group: GroupResult, call: int) -> Verdict | None:
        """The answer to the `call`-th (from 0) of the group's calls; None if the call must fail."""
        plan, _, taken, given, _ = group
        if taken is None:
            return _uncounted_verdict(plan, given)
        checks, template = plan.checks, plan.template
        outcomes = [
            check.outcome(level, call, taken.admitted) for check, level in zip(checks, taken.levels, strict=True)
        ]
        statuses = tuple(_status(plan, outcomes, indices) for indices in template.counters_of)
        metadata = _metadata(plan, statuses)
        if call < taken.admitted:
            return Verdict(Code.OK, statuses, template.tier, None, metadata, template.without_store, plan.log)
        denying = denying_limit(checks, outcomes)
        return Verdict(Code.OVER_LIMIT, statuses, template.tier, denying, metadata, template.denied_by, plan.log)


def _counted(calls: Mapping[Plan, int], takens: Sequence[Taken]) -> BatchResult:
    """The result of a batch of which all was counted, as nearly all are: without a loop of Python's."""
    of_each = zip(calls, calls.values(), takens, repeat(None), repeat(None))  # strict takes longer
    results = list(map(_new, repeat(GroupResult), of_each))
    all_admitted = list(map(_admitted, takens)) == list(calls.values())
    return BatchResult(results, () if all_admitted else denied_of(results), all_counted=True)


def _uncounted_verdict(plan: Plan, given: OnStoreFailure | None) -> Verdict | None:
    if given is OnStoreFailure.ERROR:
        return None
    code = Code.OVER_LIMIT if given is OnStoreFailure.DENY else Code.OK
    statuses = tuple(_uncounted_status(indices, code) for indices in plan.template.counters_of)
    metadata = _metadata(plan, statuses)
    return Verdict(code, statuses, plan.template.tier, None, metadata, Source.FAILURE_POLICY, plan.log)


def _status(plan: Plan, outcomes: list[Outcome], indices: tuple[int, ...]) -> DescriptorStatus:
    if not indices:
        return NO_LIMIT
    if indices is UNLIMITED_AT:
        return UNLIMITED
    i = tightest_limit(plan.checks, outcomes, indices)
    told = outcomes[i]
    return DescriptorStatus(status_code(plan.checks[i], told), plan.checks[i].limit, told.remaining, told.reset_us)


def _uncounted_status(indices: tuple[int, ...], code: Code) -> DescriptorStatus:
    return UNLIMITED if indices is UNLIMITED_AT else DescriptorStatus(code) if indices else NO_LIMIT


def _metadata(plan: Plan, statuses: tuple[DescriptorStatus, ...]) -> Mapping[str, Any] | None:
    """What the request was, and the metadata of the rules whose limits it passed, as envoyproxy/ratelimit tells it."""
    told = plan.template.metadata
    if told is None:
        return None
    merged: dict[str, Any] = {}
    for status, metadata in zip(statuses, told.metadata, strict=True):
        if metadata and status.code is Code.OK:
            _merge(merged, metadata)
    return {**told.request, **({"metadata": merged} if merged else {})}


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """What is there stays; mappings are merged."""
    for key, value in other.items():
        if key not in into:
            into[key] = _copy(value)
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value)


def _copy(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value
