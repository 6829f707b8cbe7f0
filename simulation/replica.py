"""One replica, composed as the app composes it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextvars import copy_context
from fractions import Fraction
from random import Random

from extauth.core import STORE_CHECK_S
from extauth.counters.breaker import Breaker, BreakerState
from extauth.counters.denial_cache import DenialCache
from extauth.counters.heartbeat import Heartbeat, automatic_share
from extauth.counters.heartbeat import Replica as Described
from extauth.counters.local import LocalCounters, SettlingCounters
from extauth.counters.upkeep import keep_settled
from extauth.errors import StoreError
from extauth.limiter.build import LimiterOptions, build
from extauth.limiter.counters import Group, Source, TakeResult, Uncounted
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.templates import Answer
from extauth.rules.model import OnStoreFailure, RuleSet
from extauth.transport.batching import Batcher
from simulation.caller import OK, Batches, Caller, source_of
from simulation.loop import VirtualLoop
from simulation.network import Link
from simulation.oracle import Admission, Fail
from simulation.traffic import SERVICE_POLICY, Call, Kind, kinds

DENIALS_S = 1.0
PATIENT_S = 0.02  # a connection, and two batches that settle something first, over a healthy network
LOOK_S = STORE_CHECK_S


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


class Replica:
    """One life of a replica, from its start until it crashes or is stopped.

    It must be made in a context of its own, which is that of its process. `share` is its part of each limit, by default
    as `auto`, where it was `told` how many replicas there are. From `healed_at` on the store decides every call whose
    caller has the patience. `fail` is called with what must not be, `said` with what happens.
    """

    def __init__(
        self,
        name: str,
        number_and_life: tuple[int, int],
        *,
        loop: VirtualLoop,
        link: Link,
        random: Random,
        share: Fraction | None,
        told: int | None,
        healed_at: float,
        fail: Fail,
        said: Callable[[str], None],
    ) -> None:
        self.name = name
        self.number, self.life = number_and_life
        self.shares: list[Fraction] = []  # with which it has reckoned, of those that follow from heartbeats
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
        self._closed = True
        self.resumed_at = 0.0  # from the last stop of its process
        self._stopped: list[tuple[Call, int]] | None = None  # the calls that came meanwhile, while it is stopped
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
        self.batches = Batches(self.breaker)
        decider = build(RuleSet(), self.batches, options)
        self.policy = decider.limiter.policy
        self._auto = share is None
        self._told = told
        self.heartbeat = Heartbeat(link, self._describe, clock=loop.time)
        if share is not None:
            self.policy.share = share
        self.batcher = Batcher(decider, [self], clock=loop.time)
        self.callers = [Caller(self, loop.time) for _ in range(2)]
        self._process = copy_context()
        self._work = [
            asyncio.create_task(each)
            for each in (
                self._look(),
                keep_settled(self._settle_some),
                self.heartbeat.keep(lambda: self.breaker.state, self._beaten),
            )
        ]

    async def _settle_some(self) -> bool:
        return self.breaker.state is BreakerState.CLOSED and await self.settling.settle_some()

    def call(self, call: Call, number: int) -> None:
        """Have one of the callers call; while the process is stopped, the system keeps what they send."""
        if self._stopped is not None:
            self._stopped.append((call, number))
        else:
            self._process.run(self._call, call, number)

    def _call(self, call: Call, number: int) -> None:
        kind = self.kinds[call.plan]
        self._said(f"call {call.calls}x {kind}, {call.deadline_s * 1000:g} ms")
        self.callers[number % 2].call(kind, call.calls, call.deadline_s)

    def suspend(self) -> None:
        """SIGSTOP."""
        if self._stopped is None:
            self._stopped = []
            self._loop.stop_process(self.name)

    def resume(self, *, timers_first: bool) -> None:
        """SIGCONT."""
        if self._stopped is not None:
            calls, self._stopped = self._stopped, None
            self.resumed_at = self._loop.time()
            self._loop.resume_process(self.name, timers_first=timers_first)
            for call, number in calls:
                self.call(call, number)

    async def crash(self) -> None:
        """Be gone at once: what is under way is neither answered nor sent."""
        self.fail = self._said = lambda _: None
        self._stopped = None
        self._loop.resume_process(self.name, timers_first=False)
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
        """Which of the times it is that calls need not wait for the store, which is away; 0 where it is not."""
        return 0 if self.breaker.state is BreakerState.CLOSED else self._times_away

    def _changed(self) -> None:
        self.trips += self.breaker.state is BreakerState.OPEN
        if self._closed and self.breaker.state is BreakerState.OPEN:
            self._set_share()
        self._closed = self.breaker.state is BreakerState.CLOSED
        self._times_away += self.breaker.state is BreakerState.CLOSED
        self._said(f"breaker {self.breaker.state}")

    def _set_share(self) -> None:
        """As the app does when the breaker opens."""
        if self._auto:
            share = self.policy.share = automatic_share(self.heartbeat.most_seen(), self._told)
            self.shares.append(share)
            self._said(f"reckons with a share of {share}")

    def _describe(self) -> Described:
        return Described(f"replica-{self.number}:8081", "1", "rules", str(self.breaker.state))

    def _beaten(self, error: StoreError | None) -> None:
        if error is not None:
            self._said(f"the heartbeat failed: {error.kind}")

    def _reported(self, name: bytes) -> None:
        self.stretches[name].append([])

    # What was decided

    def answered_call(
        self,
        kind: Kind,
        message: Answer,
        allowed_s: float,
        *,
        sent: bool | None = None,
        at: tuple[int, int] | None = None,
    ) -> None:
        """Note the answer to a call that had `allowed_s`, and that the store admitted `at` an instant, if it did.

        Where `sent` is None, the batch's fact will say whether the store was asked.
        """
        if isinstance(message, Uncounted):
            self.answered["status"] += 1
            if OnStoreFailure.ERROR not in kind.policies:
                self.fail(f"a call of {kind} got a status, though no policy is error")
            if message is Uncounted.UNSENT:
                self.unsent[id(kind.plan)] += 1
            return
        source = source_of(message)
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
        elif at is not None:
            self.admitted_by_store[id(kind.plan)] += 1
            self._admit(kind, *at, alone=None, sent=False)
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
        admission = Admission(at_us, elapsed_us, kind.cost, alone, sent, self.policy.share)
        for counted in kind.enforced:
            self.admissions[counted.name].append(admission)
            if alone is not None:
                self.stretches[counted.name][-1].append(admission)
