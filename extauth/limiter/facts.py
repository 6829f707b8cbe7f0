"""What was decided, and by whom: one fact for each batch, which metrics, logs and the health of the store consume."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from extauth.errors import StoreError
from extauth.limiter.counters import Source, TakeResult, Uncounted
from extauth.limiter.plan import Plan
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.model import OnStoreFailure


class GroupResult(NamedTuple):
    """The result for `calls` equal calls: the first `taken.admitted` of them are admitted.

    `taken` is None if the calls could not be counted; `given` is then what the failure policy gave each of them. It is
    ALLOW, too, where only some of their limits were counted, in `taken`, and the policy let the calls pass the others.
    `without_store` says of calls that the store did not decide whether it was asked about them. The `plan` of calls
    that were counted locally or in part is one of its own.
    """

    plan: Plan
    calls: int
    taken: TakeResult | None
    given: OnStoreFailure | None = None
    without_store: Uncounted | None = None

    @property
    def source(self) -> Source:
        """Who decided."""
        return Source.FAILURE_POLICY if self.taken is None else self.taken.source


class BatchResult(NamedTuple):
    """A decided batch, in the order of its plans; `store_error` is what the store failed with, if it was asked.

    `denied` are its groups as `denied_of` has them. `all_counted` says that each call has counters, and that the store,
    or what is remembered of its denials, decided about all of them.
    """

    groups: list[GroupResult]
    denied: Sequence[GroupResult]
    all_counted: bool
    store_error: StoreError | None = None


def denied_of(groups: Iterable[GroupResult]) -> list[GroupResult]:
    """Those that were counted and did not have all of their calls admitted."""
    # In the quickest way: by the fields' indices.
    return [group for group in groups if group[2] is not None and group[2][0] < group[1]]


class SampledCall(NamedTuple):
    """A call whose trace is recorded: it arrived at that instant, and got the group's answer `code`.

    `code` is None if the call failed.
    """

    parent: TraceParent
    arrived: float
    group: GroupResult
    code: Code | None


@dataclass(frozen=True, slots=True)
class BatchFact:
    """A batch whose answers were written: what was decided, as BatchResult says it.

    `arrivals` are (instant, number of calls that arrived then). It was decided from `asked_at` to `decided_at`, and the
    answers were written at `answered_at`; all instants are seconds of the transport's monotonic clock. `sampled` are
    those of its calls whose traces are recorded.
    """

    groups: Sequence[GroupResult]
    denied: Sequence[GroupResult]
    all_counted: bool
    store_error: StoreError | None
    arrivals: Sequence[tuple[float, int]]
    asked_at: float
    decided_at: float
    answered_at: float
    sampled: Sequence[SampledCall] = ()


@dataclass(frozen=True, slots=True)
class ShedFact:
    """A call that was not decided in time, for `reason`, and got the failure policy.

    If it is `counting`, it is part of a batch that is being decided, and of that batch's fact, where it is no longer
    among the `sampled` calls.
    """

    reason: str
    group: GroupResult
    counting: bool
    sampled: SampledCall | None = None


class Observer(Protocol):
    """Hears of every decision."""

    def batch_decided(self, fact: BatchFact) -> None:
        """Called once for each batch, after its answers were written."""
        ...

    def call_shed(self, fact: ShedFact) -> None:
        """Called for each call that was not decided in time."""
        ...
