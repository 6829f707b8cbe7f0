"""Facts as the batcher makes them, and an observer that keeps them."""

from collections.abc import Sequence

from extauth.errors import StoreError
from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.counters import LimitCheck, TakeResult
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact, denied_of
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, Unit
from extauth.rules.rule_names import RuleName


class Recorded:
    """Keeps what an observer hears, in order."""

    def __init__(self) -> None:
        self.batches: list[BatchFact] = []
        self.shed: list[ShedFact] = []

    def batch_decided(self, fact: BatchFact) -> None:
        self.batches.append(fact)

    def call_shed(self, fact: ShedFact) -> None:
        self.shed.append(fact)


def batch(
    *groups: GroupResult,
    error: StoreError | None = None,
    durations_s: Sequence[tuple[float, int]] = (),
    decided_in_s: float = 0.0,
) -> BatchFact:
    """The fact of a batch that was decided and answered at 0 s."""
    arrivals = [(-duration_s, calls) for duration_s, calls in durations_s]
    all_counted = all(each.taken and each.taken.levels and each.without_store is None for each in groups)
    return BatchFact(groups, denied_of(groups), all_counted, error, arrivals, -decided_in_s, 0.0, 0.0)


def settled(
    labels: Labels,
    allowed: int = 1,
    denied: int = 0,
    rule: RuleName = RuleName("d", "k"),  # noqa: B008
) -> GroupResult:
    """The result for calls that count for one limit of 9 a day."""
    plan = Plan((b"k",), PlanTemplate((LimitCheck(Limit(9, Unit.DAY), 1),), ((0,),), None, labels), Tally((rule,)))
    return GroupResult(plan, allowed + denied, TakeResult(allowed, (WindowUsage(9 - allowed, 0),)))
