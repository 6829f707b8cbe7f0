"""The callers on a replica's connections."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from extauth.limiter.templates import Answer
from extauth.transport.batching import Shed
from extauth.transport.waiting import Calls
from simulation.decided import Instants
from simulation.loop import TURN_NS
from simulation.traffic import Kind

if TYPE_CHECKING:
    from simulation.replica import Replica

# A timer, IO_TURNS of the loop, and those in which the batch was begun.
LATE_S = 8 * TURN_NS / 1e9
ALONE_S = 0.007  # three steps of 2 ms, for a trial that is not answered


class _Open(NamedTuple):
    """A call that has no answer yet; `alone` is what Replica.alone was when it came, and `well` what is_well was."""

    kind: Kind
    arrived: float
    deadline: float
    alone: Sequence[int]
    well: bool


class Caller:
    """A connection whose calls must each be answered once, by their deadlines."""

    def __init__(self, replica: "Replica", clock: Callable[[], float]) -> None:
        self._replica = replica
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._last = 0

    @property
    def waiting(self) -> int:
        """The number of calls that have no answer yet."""
        return len(self._open)

    def call(self, kind: Kind, calls: int, deadline_s: float) -> None:
        """Have calls that arrived together decided."""
        now = self._clock()
        together = Calls(self, now)
        for _ in range(calls):
            self._last += 1
            self._open[self._last] = _Open(
                kind, now, now + deadline_s, self._replica.alone(kind), self._replica.is_well(kind)
            )
            together.plans.append(kind.plan)
            together.stream_ids.append(self._last)
        together.deadline = now + deadline_s
        self._replica.batcher.submit(together)

    def drop_ended(self, calls: Calls) -> None:
        """As transport.waiting.Caller says."""
        kept = [i for i, number in enumerate(calls.stream_ids) if number in self._open]
        calls.plans[:] = [calls.plans[i] for i in kept]
        calls.stream_ids[:] = [calls.stream_ids[i] for i in kept]

    def expire(self, calls: Calls, now: float) -> None:
        """As transport.waiting.Caller says."""
        batcher = self._replica.batcher
        deadlines = [self._open[number].deadline for number in calls.stream_ids if number in self._open]
        calls.deadline = min([each for each in deadlines if each > now], default=float("inf"))
        for plan, number in zip(calls.plans, calls.stream_ids, strict=True):
            if number in self._open and self._open[number].deadline <= now:
                self._answer(number, batcher.shed(plan, Shed.TIMEOUT, calls, number), sent=calls.counting)

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        """As transport.waiting.Caller says."""
        for number, plan, message in zip(calls.stream_ids, calls.plans, messages, strict=True):
            instants = self._replica.decided.instants_of(plan, message)
            if number in self._open:
                self._answer(number, message, instants=instants)

    def flush(self) -> None:
        """As transport.waiting.Caller says."""

    def _answer(self, number: int, message: Answer, *, sent: bool | None = None, instants: Instants = ()) -> None:
        kind, arrived, deadline, alone, well = self._open.pop(number)
        now = self._clock()
        decided = self._replica.decided
        late_s = now - max(deadline, self._replica.resumed_at)
        if late_s > LATE_S:
            decided.fail(f"a call of {kind} was answered {late_s * 1000:.3f} ms after its deadline")
        longest_s = ALONE_S * (kind.steps if kind.spread else 1)
        if alone and alone == self._replica.alone(kind) and now > max(arrived, self._replica.resumed_at) + longest_s:
            decided.fail(f"a call of {kind} waited {(now - arrived) * 1000:.3f} ms for a store that was away")
        decided.answered_call(kind, message, deadline - arrived, well=well, sent=sent, instants=instants)
