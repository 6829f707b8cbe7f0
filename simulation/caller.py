"""The callers on a replica's connections, and when the store admitted their calls."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from extauth.limiter.counters import Group, ShardedCounters, Source, Taken, Uncounted
from extauth.limiter.templates import Answer
from extauth.transport.batching import Shed
from extauth.transport.waiting import Calls
from simulation.loop import TURN_NS
from simulation.network import Counted, counted
from simulation.traffic import Kind

if TYPE_CHECKING:
    from simulation.replica import Replica

# A timer, IO_TURNS of the loop, and those in which the batch was begun.
LATE_S = 8 * TURN_NS / 1e9
ALONE_S = 0.007  # three steps of 2 ms, for a trial that is not answered
Instants = Sequence[tuple[int, int] | None]
"""Of each counter that binds a call the store's clock and elapsed time when it admitted the call; None: it did not."""
OK = b"\x08\x01"  # how a RateLimitResponse begins that admits
_LOCAL_MARK, _POLICY_MARK = Source.LOCAL.encode(), Source.FAILURE_POLICY.encode()


class Batches:
    """In front of the store: notes when it counted which calls of a batch.

    A trial and what is asked after it have two instants, and each of several shards has its own. Between a batch's
    return and its answers nothing else happens.
    """

    def __init__(self, counters: ShardedCounters) -> None:
        self._counters = counters
        self._instants: defaultdict[int, deque[Counted]] = defaultdict(deque)

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As ShardedCounters say."""
        parts: list[Counted] = []
        counted.set(parts)
        try:
            return await self._counters.take(groups)
        finally:
            self._instants.clear()
            for part in parts:
                self._instants[part.name].append(part)

    def next_instant(self, name: bytes) -> tuple[int, int] | None:
        """The store's clock and elapsed time when it admitted the next of the admitted calls of a batch, if it did."""
        parts = self._instants[id(name)]
        while parts and not parts[0].admitted:
            parts.popleft()
        if not parts:
            return None
        part = parts[0] = parts[0]._replace(admitted=parts[0].admitted - 1)
        return part.at_us, part.elapsed_us


def source_of(message: bytes) -> str:
    """Who decided: `local`, `failure_policy` or `store`."""
    return "local" if _LOCAL_MARK in message else "failure_policy" if _POLICY_MARK in message else "store"


def is_admission(message: Answer) -> bool:
    """Whether it says so."""
    return not isinstance(message, Uncounted) and message.startswith(OK)


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
            instants = self._replica.instants_of(plan, message)
            if number in self._open:
                self._answer(number, message, instants=instants)

    def flush(self) -> None:
        """As transport.waiting.Caller says."""

    def _answer(self, number: int, message: Answer, *, sent: bool | None = None, instants: Instants = ()) -> None:
        kind, arrived, deadline, alone, well = self._open.pop(number)
        now = self._clock()
        late_s = now - max(deadline, self._replica.resumed_at)
        if late_s > LATE_S:
            self._replica.fail(f"a call of {kind} was answered {late_s * 1000:.3f} ms after its deadline")
        longest_s = ALONE_S * (kind.steps if kind.spread else 1)
        if alone and alone == self._replica.alone(kind) and now > max(arrived, self._replica.resumed_at) + longest_s:
            self._replica.fail(f"a call of {kind} waited {(now - arrived) * 1000:.3f} ms for a store that was away")
        self._replica.answered_call(kind, message, deadline - arrived, well=well, sent=sent, instants=instants)
