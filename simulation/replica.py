"""One replica, composed as the app composes it, and the callers on its connections."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from typing import NamedTuple

from extauth.app import STORE_CHECK_S
from extauth.counters.breaker import Breaker, BreakerState
from extauth.counters.denial_cache import DenialCache
from extauth.counters.local import LocalCounters, SettlingCounters
from extauth.counters.upkeep import keep_settled
from extauth.limiter.build import LimiterOptions, build
from extauth.limiter.counters import Group, Source, TakeResult, Uncounted
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.templates import Answer
from extauth.rules.model import OnStoreFailure, RuleSet
from extauth.transport.batching import Batcher, Shed
from extauth.transport.waiting import Calls
from simulation.loop import TURN_NS, VirtualLoop
from simulation.network import TIMEOUT_S, Link
from simulation.oracle import Admission, Fail
from simulation.traffic import SERVICE_POLICY, Call, Kind, kinds

DENIALS_S = 1.0
PATIENT_S = 0.015  # two batches that settle something first, over a healthy network
LOOK_S = STORE_CHECK_S
# A timer, IO_TURNS of the loop, and those in which the batch was begun.
LATE_S = 8 * TURN_NS / 1e9
ALONE_S = 0.007  # three steps of 2 ms, for a trial that is not answered
OK = b"\x08\x01"  # how a RateLimitResponse begins that admits
_LOCAL_MARK, _POLICY_MARK = Source.LOCAL.encode(), Source.FAILURE_POLICY.encode()


class Answered(Counter[str]):
    """How many calls were answered, by who decided: `store`, `local`, `failure_policy`, `status`."""


class _Reports:
    """Between the denial cache and what settles: notes when the store reports about a counter."""

    def __init__(self, counters: SettlingCounters, reported: Callable[[bytes], None]) -> None:
        self._counters = counters
        self._reported = reported

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        takens = await self._counters.take(groups)
        for group in groups:
            for name in group.take.names:
                self._reported(name)
        return takens

    async def connect(self) -> None:
        await self._counters.connect()

    async def probe(self) -> None:
        await self._counters.probe()


class _Open(NamedTuple):
    """A call that has no answer yet; `alone` is what Replica.alone was when it came."""

    kind: Kind
    arrived: float
    deadline: float
    alone: int


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
            self._open[self._last] = _Open(kind, now, now + deadline_s, self._replica.alone)
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
        for number, message in zip(calls.stream_ids, messages, strict=True):
            if number in self._open:
                self._answer(number, message)

    def flush(self) -> None:
        """As transport.waiting.Caller says."""

    def _answer(self, number: int, message: Answer, *, sent: bool | None = None) -> None:
        kind, arrived, deadline, alone = self._open.pop(number)
        now = self._clock()
        late_s = now - deadline
        if late_s > LATE_S:
            self._replica.fail(f"a call of {kind} was answered {late_s * 1000:.3f} ms after its deadline")
        if alone and alone == self._replica.alone and now > arrived + ALONE_S:
            self._replica.fail(f"a call of {kind} waited {(now - arrived) * 1000:.3f} ms for a store that was away")
        self._replica.answered_call(kind, message, deadline - arrived, sent=sent)


class Replica:
    """One life of a replica, from its start until it crashes or is stopped.

    From `healed_at` on the store decides every call whose caller has the patience. `fail` is called with what must not
    be, `said` with what happens.
    """

    def __init__(
        self,
        name: str,
        *,
        loop: VirtualLoop,
        link: Link,
        random: Random,
        share: Fraction,
        healed_at: float,
        fail: Fail,
        said: Callable[[str], None],
    ) -> None:
        self.name = name
        self.kinds = kinds()  # a process has plans of its own
        self.link = link
        self.answered = Answered()
        self.admitted_by_store: defaultdict[int, int] = defaultdict(int)  # calls, by id of the plan
        self.admissions: defaultdict[bytes, list[Admission]] = defaultdict(list)
        self.stretches: defaultdict[bytes, list[list[Admission]]] = defaultdict(lambda: [[]])
        self.asked: defaultdict[int, int] = defaultdict(int)  # by id of the plan: calls of which the store was asked
        self.unsent: defaultdict[int, int] = defaultdict(int)  # calls that were answered that nothing was sent
        self.trips = 0
        self._times_away = 1
        self._crowded_until = 0.0
        self.alone_hits: defaultdict[bytes, int] = defaultdict(int)  # that were asked for, while nothing was sent
        self.healed_at = healed_at
        self.fail = fail
        self._loop = loop
        self._said = said
        self._kinds = {id(kind.plan.tally): kind for kind in self.kinds}  # plans of local counting have these, too
        self._alone: list[Kind] = []  # admitted by a batch whose fact is still to come
        self.local = LocalCounters(link.now_us, 4 << 20)
        self.settling = SettlingCounters(link, self.local)
        denials = DenialCache(_Reports(self.settling, self._reported), DENIALS_S, loop.time_us)
        self.breaker = Breaker(denials, self._changed, clock=loop.time, chance=random.random)
        options = LimiterOptions(on_store_failure=SERVICE_POLICY, local=self.local)
        decider = build(RuleSet(), self.breaker, options)
        decider.limiter.policy.share = share
        self.batcher = Batcher(decider, [self], clock=loop.time)
        self.callers = [Caller(self, loop.time) for _ in range(2)]
        self._work = [asyncio.create_task(self._look()), asyncio.create_task(keep_settled(self.breaker, self.settling))]

    def call(self, call: Call, number: int) -> None:
        """Have one of the callers call."""
        kind = self.kinds[call.plan]
        self._said(f"call {call.calls}x {kind}, {call.deadline_s * 1000:g} ms")
        self.callers[number % 2].call(kind, call.calls, call.deadline_s)

    async def crash(self) -> None:
        """Be gone at once: what is under way is neither answered nor sent."""
        self.fail = self._said = lambda _: None
        await self._cancel()
        self.link.close()
        await self.breaker.aclose()

    async def stop(self) -> None:
        """Stop as the app does; what is under way must be over."""
        await self._cancel()
        await self.breaker.aclose()
        self.link.close()

    async def _cancel(self) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await self.breaker.look()
            await asyncio.sleep(LOOK_S)

    @property
    def alone(self) -> int:
        """Which of the times it is that calls need not wait for the store, which is away; 0 where it is not.

        Where a probe found out while two batches waited, as many as may, calls wait until one of these has failed.
        """
        closed = self.breaker.state is BreakerState.CLOSED
        return 0 if closed or self._loop.time() < self._crowded_until else self._times_away

    def _changed(self) -> None:
        self.trips += self.breaker.state is BreakerState.OPEN
        if self.breaker.state is BreakerState.OPEN and self.link.takes() > 1:
            self._crowded_until = self._loop.time() + TIMEOUT_S
        self._times_away += self.breaker.state is BreakerState.CLOSED
        self._said(f"breaker {self.breaker.state}")

    def _reported(self, name: bytes) -> None:
        self.stretches[name].append([])

    # What was decided

    def answered_call(self, kind: Kind, message: Answer, allowed_s: float, *, sent: bool | None = None) -> None:
        """Note the answer to a call that had `allowed_s`.

        Where `sent` is None, the batch's fact will say whether the store was asked.
        """
        if isinstance(message, Uncounted):
            self.answered["status"] += 1
            if OnStoreFailure.ERROR not in kind.policies:
                self.fail(f"a call of {kind} got a status, though no policy is error")
            if message is Uncounted.UNSENT:
                self.unsent[id(kind.plan)] += 1
            return
        source = "local" if _LOCAL_MARK in message else "failure_policy" if _POLICY_MARK in message else "store"
        self.answered[source] += 1
        if source != "store" and allowed_s >= PATIENT_S and self._loop.time() > self.healed_at:
            self.fail(f"a call of {kind} was decided by {source}, though the store is back")
        if not message.startswith(OK):
            return
        if source != "store" and kind.policies & {OnStoreFailure.DENY, OnStoreFailure.ERROR}:
            self.fail(f"a call of {kind} was admitted by {source}")
        if source == "failure_policy":
            if kind.policies != {OnStoreFailure.ALLOW}:
                self.fail(f"a call of {kind} was admitted without being counted")
        elif source == "store":
            self.admitted_by_store[id(kind.plan)] += 1
            self._admit(kind, *self.link.instants[id(kind.plan)], alone=None, sent=False)
        elif sent is None:
            self._alone.append(kind)
        else:
            self._admit(kind, self.link.now_us(), self.link.elapsed_us(), alone=self.name, sent=sent)

    def batch_decided(self, fact: BatchFact) -> None:
        """Note which calls the store was asked about."""
        sent = {}
        for group in fact.groups:
            kind = self._kinds[id(group.plan.tally)]
            sent[kind] = group.without_store is Uncounted.SENT
            if sent[kind] or group.source is Source.STORE:
                self.asked[id(kind.plan)] += group.calls
            self._count_alone(group)
        for kind in self._alone:
            self._admit(kind, self.link.now_us(), self.link.elapsed_us(), alone=self.name, sent=sent[kind])
        self._alone.clear()

    def call_shed(self, fact: ShedFact) -> None:
        """Note what it took."""
        self._count_alone(fact.group)

    def _count_alone(self, group: GroupResult) -> None:
        if group.source is Source.LOCAL and group.without_store is Uncounted.UNSENT:
            for name, check in zip(group.plan.names, group.plan.checks, strict=True):
                self.alone_hits[name] += group.calls * check.cost

    def _admit(self, kind: Kind, at_us: int, elapsed_us: int, *, alone: str | None, sent: bool) -> None:
        admission = Admission(at_us, elapsed_us, kind.cost, alone, sent)
        for counted in kind.enforced:
            self.admissions[counted.name].append(admission)
            if alone is not None:
                self.stretches[counted.name][-1].append(admission)
