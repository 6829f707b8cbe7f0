"""One schedule: replicas, callers and faults from a seed, and whether everything holds that must."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import cast

from extauth.counters.heartbeat import BEAT_S
from extauth.rules.model import Algorithm, OnStoreFailure
from simulation.faults import ALL, Fault, faults_of, stops_of
from simulation.loop import START_S, VirtualLoop, process, run_virtually
from simulation.network import Link
from simulation.oracle import Admission, Bound, StoreOracle, check_alone, check_in_all
from simulation.replica import LOOK_S, Replica
from simulation.store import Store
from simulation.traffic import LIMITS, SERVICE_POLICY, Call, calls_of

FAULTS_END_S = 2.4
BACK_S = 1.0  # by then after the last fault every call is decided by the store
DURATION_S = FAULTS_END_S + 1.5
WARM_UP_S = BEAT_S + 0.1  # until each replica has heard of the others
QUIET_S = 0.5  # from the last call until nothing is left to do


@dataclass(frozen=True)
class Schedule:
    """What a seed means."""

    seed: int
    replicas: int
    share: Fraction | None  # None: auto
    told: int | None  # how many replicas there are, if they are told that
    ahead_us: int  # of the store's clock, after the start of an hour
    calls: Sequence[Call]
    faults: Sequence[Fault]

    @classmethod
    def of(cls, seed: int) -> "Schedule":
        """The schedule of a seed."""
        random = Random(seed)
        replicas = random.choice((1, 2, 2, 3))
        share = random.choice((Fraction(1), Fraction(1, replicas)))
        ahead_us = random.randrange(3_600_000_000)
        faults = faults_of(random, replicas, FAULTS_END_S)
        calls = calls_of(random, replicas, DURATION_S)
        more = Random(f"{seed} more")  # so that what was drawn before is as it was without it
        if more.random() < 0.15:
            faults = stops_of(more, replicas, FAULTS_END_S, 10, (0.3,))
        elif more.random() < 0.4:
            faults = [*faults, *stops_of(more, replicas, FAULTS_END_S, more.randint(1, 3), (0.005, 0.05, 0.3, 2.0))]
        faults = sorted(faults, key=lambda fault: fault.at_s)
        auto = more.random() < 0.4
        told = more.choice((None, replicas)) if auto else None
        return cls(seed, replicas, None if auto else share, told, ahead_us, calls, faults)


@dataclass
class Result:
    """What came of it: `wrong` is what must not be, `record` what happened, if that was asked for."""

    wrong: list[str] = field(default_factory=list)
    record: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    trips: int = 0


def run(schedule: Schedule, *, record: bool = False) -> Result:
    """Run a schedule."""
    return run_virtually(_Run(schedule, record=record).run())


class _Run:
    def __init__(self, schedule: Schedule, *, record: bool) -> None:
        self._schedule = schedule
        self._recording = record
        self._result = Result()
        self._lives: list[Replica] = []
        self._live: dict[int, Replica] = {}
        self._crashes: list[asyncio.Task[None]] = []

    async def run(self) -> Result:
        """All of it."""
        schedule = self._schedule
        self._loop = loop = cast(VirtualLoop, asyncio.get_running_loop())
        self._begins = START_S + (WARM_UP_S if schedule.share is None else 0)
        self._oracle = StoreOracle(LIMITS, self._fail)
        self._store = Store(loop, self._oracle, schedule.ahead_us)
        self._healed_at = self._begins + BACK_S + max((fault.until_s for fault in schedule.faults), default=-BACK_S)
        for number in range(schedule.replicas):
            self._start(number)
        for fault in schedule.faults:
            loop.call_at(self._begins + fault.at_s, self._begin, fault)
        for number, call in enumerate(schedule.calls):
            await asyncio.sleep(self._begins + call.at_s - loop.time())
            if call.replica in self._live:
                self._live[call.replica].call(call, number)
        await asyncio.sleep(
            max(self._healed_at + 2 * LOOK_S - BACK_S - loop.time(), 0) + QUIET_S
        )  # two looks at the store, too: the one after a trial is left out
        await self._stop()
        self._check()
        return self._result

    async def _stop(self) -> None:
        """Nothing may be left."""
        for replica in self._live.values():
            if any(caller.waiting for caller in replica.callers):
                self._fail(f"{replica.name}: {sum(c.waiting for c in replica.callers)} calls were never answered")
            if replica.local.owes:
                self._fail(f"{replica.name} still owes the store {replica.local.some_debtors()}")
            if len(replica.batcher.deadlines):
                self._fail(f"{replica.name} still watches {len(replica.batcher.deadlines)} deadlines")
            await replica.stop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if others:
            self._fail(f"tasks are left: {others}")
        if timers := self._loop.timers():
            self._fail(f"{timers} timers are left")
        for error in self._loop.errors:
            self._fail(error)

    # What happens

    def _start(self, number: int) -> None:
        life = 1 + sum(replica.number == number for replica in self._lives)
        name = f"replica {number}" + (f" (life {life})" if life > 1 else "")

        def said(event: str) -> None:
            self._say(name, event)

        context = copy_context()
        context.run(process.set, name)
        link = Link(self._loop, self._store, Random(f"{self._schedule.seed} {name}"), said, context)
        random = Random(f"{self._schedule.seed} {name} pauses")
        share, fail = self._schedule.share, self._fail
        replica = context.run(
            Replica,
            name,
            (number, life),
            loop=self._loop,
            link=link,
            random=random,
            share=share,
            told=self._schedule.told,
            healed_at=self._healed_at,
            fail=fail,
            said=said,
        )
        self._lives.append(replica)
        self._live[number] = replica
        self._say(name, "starts")

    def _begin(self, fault: Fault) -> None:
        self._say("fault", f"begins: {fault}")
        ends = self._cause(fault)
        if ends is not None:
            self._loop.call_at(self._begins + fault.until_s, self._end, fault, ends)

    def _end(self, fault: Fault, ends: Callable[[], None]) -> None:
        self._say("fault", f"ends: {fault.kind}")
        ends()

    def _cause(self, fault: Fault) -> Callable[[], None] | None:
        """Begin it; returns what ends it."""
        store = self._store
        if fault.kind == "freeze":
            store.freeze()
            return store.thaw
        if fault.kind == "clock step":
            store.step(int(fault.amount * 1_000_000))
            return None
        if fault.kind.startswith("crash"):
            store.crash(lose=fault.kind.endswith("lost"))
            for replica in self._lives:
                replica.link.cut("the store is gone")
            return store.restart
        if fault.kind == "replica crash":
            return self._crash(fault.replica)
        if fault.kind == "replica stop":
            return self._suspend(fault.replica)
        links = [replica.link for number, replica in self._live.items() if fault.replica in {ALL, number}]
        for link in links:
            link.begin(fault.kind, fault.amount)

        def end() -> None:
            for link in links:
                link.end(fault.kind)

        return end

    def _crash(self, number: int) -> Callable[[], None] | None:
        replica = self._live.pop(number, None)
        if replica is None:
            return None
        self._crashes.append(asyncio.ensure_future(replica.crash()))
        return lambda: self._start(number)

    def _suspend(self, number: int) -> Callable[[], None] | None:
        replica = self._live.get(number)
        if replica is None:
            return None
        replica.suspend()
        return lambda: replica.resume(timers_first=number % 2 == 0)

    # What must hold

    def _check(self) -> None:
        for replica in self._lives:
            self._result.answered.update(replica.answered)
            self._result.trips += replica.trips
            self._check_shares(replica)
            for kind in replica.kinds:
                key = id(kind.plan)
                told, did = replica.admitted_by_store[key], self._oracle.admitted[key]
                if told > did:
                    self._fail(f"{replica.name} told {told} of {kind} that the store admitted them: it did {did}")
        for replica in self._live.values():
            for kind in replica.kinds:
                key = id(kind.plan)
                sent, asked = replica.link.sent_calls.get(key, 0), replica.asked[key]
                if sent > asked:
                    self._fail(f"{replica.name} sent {sent} calls of {kind}, and says that it sent {asked}")
        self._check_stops()
        self._check_settlements()
        policies = {name: limit.on_store_failure or SERVICE_POLICY for name, limit in LIMITS.items()}
        for name, limit in LIMITS.items():
            if policies[name] is OnStoreFailure.ALLOW:
                continue
            anew = self._oracle.losses + (0 if limit.algorithm is Algorithm.GCRA else self._oracle.setbacks)
            bound = Bound(limit, self._schedule.replicas, anew)
            admissions: list[Admission] = []
            for replica in self._lives:
                admissions += replica.admissions[name]
                for stretch in replica.stretches[name]:
                    check_alone(name, bound, stretch, self._fail)
            check_in_all(name, bound, admissions, self._lost[name], self._fail)

    def _check_stops(self) -> None:
        """A process that was stopped does not take that for a store that does not answer."""
        only_stops = all(fault.kind == "replica stop" for fault in self._schedule.faults)
        if only_stops and self._result.trips:
            self._fail(f"a breaker opened {self._result.trips} times, though the store was always there")

    def _check_shares(self, replica: Replica) -> None:
        """Whoever has heard of all replicas, or was told how many there are, takes its part and no more."""
        part = Fraction(1, self._schedule.replicas)
        knows = self._schedule.told is not None or replica.life == 1
        for share in replica.shares:
            if share < part or (knows and share > part):
                self._fail(f"{replica.name} reckoned with a share of {share}, of {self._schedule.replicas} replicas")

    def _check_settlements(self) -> None:
        """What was settled is not more than what was counted; also note what was lost on the way."""
        self._lost: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for replica in self._lives:
            settled: defaultdict[bytes, int] = defaultdict(int)
            for owed, added in replica.link.sent_settlements:
                for name, _, numbers in owed:
                    if LIMITS[name].algorithm is Algorithm.GCRA:
                        hits = -(-numbers[0] // LIMITS[name].emission_interval.ticks)
                        settled[name] += numbers[0] // LIMITS[name].emission_interval.ticks
                        pairs = [(0, hits)]
                    else:
                        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
                        settled[name] += sum(numbers[1::2])
                    if not added[0]:
                        self._lost[name] += pairs
            for name, hits in settled.items():
                if hits > replica.alone_hits[name]:
                    self._fail(
                        f"{replica.name} settled {hits} of {name.decode()}, and had counted {replica.alone_hits[name]}"
                    )

    def _fail(self, what: str) -> None:
        self._result.wrong.append(f"{self._loop.time() - self._begins:9.6f} {what}")
        self._say("WRONG", what)

    def _say(self, who: str, what: str) -> None:
        if self._recording:
            self._result.record.append(f"{self._loop.time() - self._begins:9.6f}  {who:<20} {what}")
