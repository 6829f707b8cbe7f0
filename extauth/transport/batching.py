"""Natural batching: what arrives while a batch is being decided is the next batch.

An idle server adds no wait: calls that one turn of the event loop reads go to the store in the next turn. Each
connection gets its answers to a batch in one write.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from time import perf_counter

from extauth.limiter.build import Decider
from extauth.limiter.counters import Uncounted
from extauth.limiter.facts import BatchFact, GroupResult, Observer, SampledCall, ShedFact
from extauth.limiter.plan import Plan
from extauth.limiter.templates import Answer
from extauth.rls.response import Code, Verdict, code_of, encode_response, too_large_response
from extauth.rules.model import OnStoreFailure
from extauth.transport.deadlines import Clock, Deadlines
from extauth.transport.waiting import Caller, Calls, WaitingCalls

SWEEP_S = 0.01  # the shortest time between two searches of the queue for calls that have ended
MAX_BATCH_US = 5000  # of the store's time: it serves one batch after the other, and the next should not wait longer
LOG_S = 1.0  # the shortest time between two errors that are logged


class Shed(StrEnum):
    """Why the failure policy answered a call instead of the store; the value is the metric's label.

    WAITING_CALLS: too many calls wait for a batch. STREAMS: too many calls are open on the connection. TIMEOUT: the
    call has expired, see `deadlines.py`.
    """

    WAITING_CALLS = "waiting_calls"
    STREAMS = "streams"
    TIMEOUT = "timeout"


class Batcher:
    """Gathers calls into batches and has them decided, a few batches at a time.

    A batch has at most `max_batch` calls and takes the store at most MAX_BATCH_US, unless its one call takes longer.
    `max_waiting` bounds the calls that wait for a batch. Calls that are not decided in time get the failure policy.
    `too_large` is the answer to a call that is too large to be evaluated: a denial if `denies`, else OK. `observers`
    are notified of every batch and of every call that was not decided in time.
    """

    def __init__(
        self,
        decider: Decider,
        observers: Sequence[Observer] = (),
        *,
        max_batch: int = 1000,
        max_in_flight: int = 2,
        max_waiting: int = 20_000,
        denies: bool = True,
        clock: Clock = perf_counter,
        deadlines: Deadlines | None = None,
    ) -> None:
        self.clock = clock
        self.deadlines = Deadlines(clock) if deadlines is None else deadlines
        self.too_large = too_large_response() if denies else encode_response(Verdict(Code.OK, ()))
        self._limiter = decider.limiter
        self._answers = decider.answers
        self._observers = tuple(observers)
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._waiting = WaitingCalls(self.deadlines)
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._swept = self._logged = float("-inf")

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return self._waiting.size

    @property
    def idle(self) -> bool:
        """Whether no call waits or is being decided."""
        return not self._waiting.size and not self._tasks and not self._scheduled

    def room(self) -> int:
        """The number of further calls that may wait."""
        if self._waiting.size >= self._max_waiting:
            self.sweep()
        return self._max_waiting - self._waiting.size

    def shed(self, plan: Plan, why: Shed, calls: Calls, number: int) -> Answer:
        """The failure policy's answer to a call that is not decided in time; Uncounted: the call must fail.

        It arrived with `calls`, where `number` is its caller's own name for it.
        """
        group = self._limiter.uncounted(plan, 1, Uncounted.of(sent=calls.counting))
        answer = self._answers.encode(group)[0]
        parent = calls.take_parent(number)
        sampled = None if parent is None else SampledCall(parent, calls.arrived, group, _code(answer))
        fact = ShedFact(why, group, calls.counting, sampled)
        for observer in self._observers:
            observer.call_shed(fact)
        return answer

    def sweep(self) -> None:
        """Forget calls that have ended while they waited, so that they take up no room."""
        now = self.clock()
        if now - self._swept < SWEEP_S:
            return
        self._swept = now
        self._waiting.drop_ended()

    def submit(self, calls: Calls) -> None:
        """Have the calls decided and their caller answered; the caller must have checked that there is `room`."""
        self._waiting.add(calls)
        if calls.deadline < float("inf"):
            self.deadlines.add(calls)
        if not self._scheduled and len(self._tasks) < self._max_in_flight:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        now, loop = self.clock(), asyncio.get_running_loop()
        while self._waiting.size and len(self._tasks) < self._max_in_flight:
            batch: list[Calls] = []
            for calls in self._waiting.take(self._max_batch, MAX_BATCH_US):
                if now >= calls.deadline:
                    calls.expire(now)
                calls.caller.drop_ended(calls)
                if calls.plans:
                    calls.counting = True
                    batch.append(calls)
                else:
                    self.deadlines.discard(calls)
            if batch:
                task = loop.create_task(self._decide(batch))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._waiting.size and not self._scheduled:
            self._start()

    async def _decide(self, batch: list[Calls]) -> None:
        counts = _count(batch)
        asked_at = self.clock()
        try:
            result = await self._limiter.decide(counts)
            decided_at = self.clock()
            answers = dict(zip(counts, self._answers.encode_all(result.groups), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails these calls and no later ones
            self._log(error)
            self._fail(batch)
            return
        sampled: list[SampledCall] = []
        for calls in batch:
            self.deadlines.discard(calls)
            try:
                messages = [a if isinstance(a := answers[plan], bytes) else next(a) for plan in calls.plans]
                calls.caller.answer(calls, messages)
                if calls.parents:
                    sampled += _sampled(calls, messages, dict(zip(counts, result.groups, strict=True)))
            except Exception as error:  # noqa: BLE001 - an error with one caller is no reason to let the others wait
                self._log(error)
        for caller in {calls.caller for calls in batch}:
            self._flush(caller)
        arrivals = [(calls.arrived, len(calls.plans)) for calls in batch]
        fact = BatchFact(*result, arrivals, asked_at, decided_at, self.clock(), sampled)
        for observer in self._observers:
            observer.batch_decided(fact)

    def _fail(self, batch: list[Calls]) -> None:
        """Answer by the failure policy, without the code that failed."""
        ok, over_limit = encode_response(Verdict(Code.OK, ())), encode_response(Verdict(Code.OVER_LIMIT, ()))

        def answer(plan: Plan) -> Answer:
            _, _, taken, given, _ = self._limiter.uncounted(plan, 1, Uncounted.SENT)
            if given is OnStoreFailure.ERROR:
                return Uncounted.SENT
            return ok if (given is OnStoreFailure.ALLOW if taken is None else taken.admitted) else over_limit

        for calls in batch:
            self.deadlines.discard(calls)
            calls.caller.answer(calls, [answer(plan) for plan in calls.plans])
            self._flush(calls.caller)

    def _flush(self, caller: Caller) -> None:
        """Flush the caller; an error with one caller is no reason to let the others wait."""
        try:
            caller.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._log(error)

    def _log(self, error: Exception) -> None:
        now = self.clock()
        if now - self._logged >= LOG_S:
            self._logged = now
            asyncio.get_running_loop().call_exception_handler({"message": "a batch failed", "exception": error})


def _count(batch: list[Calls]) -> dict[Plan, int]:
    """The number of calls of each plan."""
    if len(batch) == 1 == len(batch[0].plans):  # a Counter takes several calls of Python's own library
        return {batch[0].plans[0]: 1}
    counts: Counter[Plan] = Counter()
    for calls in batch:
        counts.update(calls.plans)
    return counts


def _sampled(calls: Calls, messages: Sequence[Answer], groups: Mapping[Plan, GroupResult]) -> Iterator[SampledCall]:
    """Those of the calls whose traces are recorded."""
    for plan, number, message in zip(calls.plans, calls.stream_ids, messages, strict=True):
        parent = calls.take_parent(number)
        if parent is not None:
            yield SampledCall(parent, calls.arrived, groups[plan], _code(message))


def _code(answer: Answer) -> Code | None:
    """The code of an answer; None where the call fails."""
    return None if isinstance(answer, Uncounted) else code_of(answer)
