"""The calls that wait for a batch: each caller has a queue of its own, and callers take turns."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Protocol

from extauth.limiter.plan import Plan
from extauth.limiter.templates import Answer
from extauth.rls.trace_context import TraceParent
from extauth.transport.deadlines import Deadlines

# A caller may add this much to a batch before the others have their turn, if not all waiting calls fit into one.
TURN_US = 1000
TURN_CALLS = 200

_cost_us = attrgetter("cost_us")


class Calls:
    """Calls of one caller that arrived together, at `arrived`; `stream_ids` are the caller's own names for them.

    Times are seconds of the batcher's clock; `deadline` is the earliest of the calls' deadlines. `counting`: the
    calls have been handed to the store. `parents` has the traces of those calls whose traces are recorded, by their
    `stream_ids`, and perhaps some of other calls; it is None where there are none.
    """

    __slots__ = ("arrived", "caller", "counting", "deadline", "parents", "plans", "stream_ids")

    def __init__(self, caller: "Caller", arrived: float) -> None:
        self.caller = caller
        self.arrived = arrived
        self.counting = False
        self.deadline = float("inf")
        self.plans: list[Plan] = []
        self.stream_ids: list[int] = []
        self.parents: dict[int, TraceParent] | None = None

    def add_parent(self, number: int, parent: TraceParent) -> None:
        """Note the trace of a call."""
        if self.parents is None:
            self.parents = {}
        self.parents[number] = parent

    def take_parent(self, number: int) -> TraceParent | None:
        """The trace of a call, which is then forgotten."""
        return None if self.parents is None else self.parents.pop(number, None)

    def expire(self, now: float) -> None:
        """Have the calls answered whose deadline has come."""
        self.caller.expire(self, now)

    def cost_us(self) -> int:
        """How long the store takes to count them, at most: the sum of their plans' `cost_us`."""
        return sum(map(_cost_us, self.plans))

    def fitting(self, max_calls: int, max_us: int) -> int:
        """The number of calls from the first on that cost at most `max_us` together, and are at most `max_calls`."""
        for number, plan in enumerate(self.plans):
            max_us -= plan.cost_us
            if number == max_calls or max_us < 0:
                return number
        return len(self.plans)

    def split(self, number: int) -> "Calls":
        """Keep the first `number` of the calls, and return the others."""
        others = Calls(self.caller, self.arrived)
        others.deadline, others.parents = self.deadline, self.parents
        others.plans, others.stream_ids = self.plans[number:], self.stream_ids[number:]
        del self.plans[number:], self.stream_ids[number:]
        return others

    def some(self, indices: Sequence[int]) -> "Calls":
        """Those of the calls, as calls of their own."""
        some = Calls(self.caller, self.arrived)
        some.deadline, some.parents = self.deadline, self.parents
        some.plans = [self.plans[i] for i in indices]
        some.stream_ids = [self.stream_ids[i] for i in indices]
        return some


class Caller(Protocol):
    """Sends calls to the batcher, and gets their answers."""

    def drop_ended(self, calls: Calls) -> None:
        """Drop from `calls`, before they are counted, those that were cancelled or have expired."""
        ...

    def expire(self, calls: Calls, now: float) -> None:
        """Answer the calls whose deadline has come, and set `calls.deadline` to the earliest of the others."""
        ...

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        """Take one answer for each call; Uncounted: the call must fail, because the store failed."""
        ...

    def flush(self) -> None:
        """Send the answers: the batch has no more of them for this caller."""
        ...


class WaitingCalls:
    """The calls that wait for a batch; `size` is their number. Calls that are split off are added to `deadlines`."""

    def __init__(self, deadlines: Deadlines) -> None:
        # All calls are in the list, in order of arrival, until they do not fit into one batch. Then they are in queues,
        # one for each caller, with the one whose turn is next in front.
        self._all: list[Calls] = []
        self._queues: OrderedDict[Caller, deque[Calls]] = OrderedDict()
        self.size = 0
        self._deadlines = deadlines

    def add(self, calls: Calls) -> None:
        """Add calls behind those of the same caller."""
        self.size += len(calls.plans)
        if not self._queues:
            self._all.append(calls)
        else:
            self._enqueue(calls)

    def drop_ended(self) -> None:
        """Drop the calls that were cancelled or have expired."""
        for calls in [*self._all, *chain.from_iterable(self._queues.values())]:
            before = len(calls.plans)
            calls.caller.drop_ended(calls)
            self.size -= before - len(calls.plans)

    def take(self, max_calls: int, max_us: int) -> list[Calls]:
        """Take the next batch: at least one call, and as many as both limits allow.

        All of them, if they fit. Otherwise callers take turns, so that a caller with very many or very costly calls
        delays the others by one turn only.
        """
        batch = self._all
        if batch:
            cost_us = 0
            for calls in batch:
                cost_us += sum(map(_cost_us, calls.plans))
            if self.size <= max_calls and cost_us <= max_us:
                self._all = []
                self.size = 0
                return batch
            for calls in batch:
                self._enqueue(calls)
            self._all = []
        return self._take_turns(max_calls, max_us)

    def _enqueue(self, calls: Calls) -> None:
        queue = self._queues.get(calls.caller)
        if queue is None:
            self._queues[calls.caller] = deque((calls,))
        else:
            queue.append(calls)

    def _take_turns(self, max_calls: int, max_us: int) -> list[Calls]:
        batch: list[Calls] = []
        while self._queues and max_calls > 0:
            caller, queue = next(iter(self._queues.items()))
            calls = queue[0]
            number = calls.fitting(min(TURN_CALLS, max_calls), min(TURN_US, max_us))
            if not number and calls.plans:
                if batch and calls.plans[0].cost_us > max_us:
                    break
                number = 1
            if number < len(calls.plans):
                queue[0] = calls.split(number)
                if calls.deadline < float("inf"):
                    self._deadlines.add(queue[0])
            else:
                queue.popleft()
            batch.append(calls)
            max_calls -= number
            max_us -= calls.cost_us()
            self.size -= number
            if queue:
                self._queues.move_to_end(caller)
            else:
                del self._queues[caller]
        return batch
