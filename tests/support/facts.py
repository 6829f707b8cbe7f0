"""Facts as the batcher makes them, and an observer that keeps them."""

from collections.abc import Sequence

from extauth.errors import StoreError
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact


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
    return BatchFact(groups, error, arrivals, -decided_in_s, 0.0, 0.0)
