"""One schedule: replicas, callers and faults from a seed, and whether everything holds that must."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from random import Random
from typing import cast

from extauth.counters.breaker import BreakerState
from extauth.counters.heartbeat import BEAT_S
from simulation.checks import Checks
from simulation.faults import ALL, LINK_KINDS, Fault, cuts_of, faults_of, hand_overs_of, of_masters, stops_of
from simulation.layout import ONE_SERVER, Layout
from simulation.loop import START_S, VirtualLoop, process, run_virtually
from simulation.network import Link
from simulation.replica import LOOK_S, Replica
from simulation.store import Store
from simulation.store_oracle import StoreOracle
from simulation.traffic import Call, calls_of, calls_to_cluster, layout_of, limits

FAULTS_END_S = 2.4
BACK_S = 1.0  # by then after the last fault every call is decided by the store
DURATION_S = FAULTS_END_S + 1.5
WARM_UP_S = BEAT_S + 0.1  # until each replica has heard of the others
CLUSTERS = 1 / 3  # of all schedules
SKEWS_US = (0, 20_000, 3_000_000, 60_000_000)
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
    layout: Layout = ONE_SERVER
    skews_us: Sequence[int] = (0,)  # of each master's clock, beside `ahead_us`

    @classmethod
    def of(cls, seed: int) -> "Schedule":
        """The schedule of a seed: with one server, or with a cluster."""
        return cls.of_cluster(seed) if Random(f"{seed} masters").random() < CLUSTERS else cls.of_server(seed)

    @classmethod
    def of_cluster(cls, seed: int) -> "Schedule":
        """The schedule of a seed where the store is a cluster."""
        other, random = cls.of_server(seed), Random(f"{seed} of a cluster")
        layout = layout_of(random)
        cuts = cuts_of(random, FAULTS_END_S, random.choice((0, 0, 0, 80)))
        calls = calls_to_cluster(random, other.replicas, DURATION_S)
        faults = of_masters(random, [*other.faults, *cuts], layout.masters)
        skews_us = [random.randint(-most_us, most_us) for most_us in random.choices(SKEWS_US, k=layout.masters)]
        hand_overs = hand_overs_of(random, layout.masters, FAULTS_END_S, random.choice((0, 0, 1, 4)))
        in_order = sorted([*faults, *hand_overs], key=lambda fault: fault.at_s)
        return replace(other, calls=calls, faults=in_order, layout=layout, skews_us=skews_us)

    @classmethod
    def of_server(cls, seed: int) -> "Schedule":
        """The schedule of a seed where the store is one server."""
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
    returned: int = 0
    """Hits that shards took back."""


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
        own_limits = limits(schedule.layout)
        self._oracles = [StoreOracle(own_limits, self._fail) for _ in schedule.skews_us]
        self._stores = [
            Store(loop, oracle, schedule.ahead_us + skew_us)
            for oracle, skew_us in zip(self._oracles, schedule.skews_us, strict=True)
        ]
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
        Checks(schedule, self._lives, self._oracles, self._result, self._fail).check()
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
            if replica.wiring.guard.state is not BreakerState.CLOSED:
                self._fail(f"{replica.name}: the breaker is {replica.wiring.guard.state}, though the store is back")
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

        def said(where: str, event: str) -> None:
            self._say(name, where + event)

        context = copy_context()
        context.run(process.set, name)
        schedule = self._schedule
        links = [
            Link(
                self._loop,
                store,
                Random(f"{schedule.seed} {name}" + (f" {master}" if schedule.layout.is_cluster else "")),
                partial(said, f"master {master}: " if schedule.layout.is_cluster else ""),
                context,
            )
            for master, store in enumerate(self._stores)
        ]
        random = Random(f"{schedule.seed} {name} pauses")
        replica = context.run(
            Replica,
            name,
            (number, life),
            loop=self._loop,
            layout=schedule.layout,
            links=links,
            random=random,
            share=schedule.share,
            told=schedule.told,
            healed_at=self._healed_at,
            fail=self._fail,
            said=partial(said, ""),
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
        masters = [fault.master] if fault.master != ALL else list(range(len(self._stores)))
        if fault.kind == "replica crash":
            return self._crash(fault.replica)
        if fault.kind == "replica stop":
            return self._suspend(fault.replica)
        if fault.kind in LINK_KINDS:
            return self._disturb(fault, masters)
        ends = [self._break(fault, master) for master in masters]

        def end() -> None:
            for each in ends:
                if each is not None:
                    each()

        return end if any(ends) else None

    def _break(self, fault: Fault, master: int) -> Callable[[], None] | None:
        store = self._stores[master]
        if fault.kind == "freeze":
            store.freeze()
            return store.thaw
        if fault.kind == "hand over":
            store.hand_over()
            return None
        if fault.kind == "clock step":
            store.step(int(fault.amount * 1_000_000))
            return None
        store.crash(lose=fault.kind.endswith("lost"))
        for replica in self._lives:
            replica.links[master].cut("the store is gone")
        return store.restart

    def _disturb(self, fault: Fault, masters: Sequence[int]) -> Callable[[], None]:
        links = [
            replica.links[master]
            for number, replica in self._live.items()
            if fault.replica in {ALL, number}
            for master in masters
        ]
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

    def _fail(self, what: str) -> None:
        self._result.wrong.append(f"{self._loop.time() - self._begins:9.6f} {what}")
        self._say("WRONG", what)

    def _say(self, who: str, what: str) -> None:
        if self._recording:
            self._result.record.append(f"{self._loop.time() - self._begins:9.6f}  {who:<20} {what}")
