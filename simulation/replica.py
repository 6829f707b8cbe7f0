"""One replica, composed as the app composes it."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from fractions import Fraction
from random import Random

from extauth.core import STORE_CHECK_S
from extauth.counters.breaker import BreakerState
from extauth.counters.heartbeat import Heartbeat, automatic_share
from extauth.counters.heartbeat import Replica as Described
from extauth.counters.upkeep import keep_settled
from extauth.errors import StoreError
from extauth.limiter.build import LimiterOptions, build
from extauth.rules.model import RuleSet
from extauth.transport.batching import Batcher
from extauth.transport.parted import PartedBatcher
from simulation.caller import Caller
from simulation.decided import Batches, Decided
from simulation.layout import Layout
from simulation.loop import VirtualLoop
from simulation.network import Link
from simulation.oracle import Fail
from simulation.traffic import SERVICE_POLICY, Call, Kind, kinds
from simulation.wiring import cluster, one_server

LOOK_S = STORE_CHECK_S


class Replica:
    """One life of a replica, from its start until it crashes or is stopped.

    It must be made in a context of its own, which is that of its process. `links` are to the servers of the `layout`.
    `share` is its part of each limit, by default as `auto`, where it was `told` how many replicas there are. From
    `healed_at` on the store decides every call whose caller has the patience. `fail` is called with what must not be,
    `said` with what happens.
    """

    def __init__(
        self,
        name: str,
        number_and_life: tuple[int, int],
        *,
        loop: VirtualLoop,
        layout: Layout,
        links: Sequence[Link],
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
        self.kinds = kinds(layout)  # a process has plans of its own
        self.links = links
        self.trips = 0
        self.gone = False
        self._closed = True
        self.resumed_at = 0.0  # from the last stop of its process
        self._stopped: list[tuple[Call, int]] | None = None  # the calls that came meanwhile, while it is stopped
        self._loop = loop
        self._layout = layout
        self._said = said
        if layout.is_cluster:
            self.wiring = cluster(loop, links, layout, random, self._changed)
        else:
            self.wiring = one_server(loop, links[0], random, self._changed)
        self.local = self.wiring.local
        self._ready = asyncio.Event()
        if self.wiring.ready:
            self._ready.set()
        # One counter of each master, its breaker's state, and how often it was away.
        self._of_master = {layout.master_of(name): name for kind in self.kinds for name in kind.plan.names}
        self._states = dict.fromkeys(self._of_master, BreakerState.CLOSED)
        self._times_away = dict.fromkeys(self._of_master, 1)
        options = LimiterOptions(on_store_failure=SERVICE_POLICY, local=self.local)
        batches = Batches(self.wiring.asked)
        decider = build(RuleSet(), batches, options)
        self.policy = decider.limiter.policy
        self.decided = Decided(
            name,
            self.kinds,
            layout=layout,
            links=links,
            batches=batches,
            policy=self.policy,
            loop=loop,
            healed_at=healed_at,
            fail=fail,
        )
        self.local.reported = self.decided.counter_reported
        self._auto = share is None
        self._told = told
        self.heartbeat = Heartbeat(self.wiring.registry, self._describe, clock=loop.time)
        if share is not None:
            self.policy.share = share
        part_of = self.wiring.part_of
        self.batcher = (
            Batcher(decider, [self.decided], clock=loop.time)
            if part_of is None
            else PartedBatcher(decider, [self.decided], part_of=part_of, clock=loop.time)
        )
        self.callers = [Caller(self, loop.time) for _ in range(2)]
        self._process = copy_context()
        self._work = [
            asyncio.create_task(each) for each in (self._look(), keep_settled(self.wiring.settle_some), self._beat())
        ]

    def call(self, call: Call, number: int) -> None:
        """Have one of the callers call; while the process is stopped, the system keeps what they send."""
        if self._stopped is not None:
            self._stopped.append((call, number))
        else:
            self._process.run(self._call, call, number)

    def _call(self, call: Call, number: int) -> None:
        if not self._ready.is_set():  # nobody is sent to a replica that has not started yet
            return
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
        self.gone = True
        self.decided.fail = self._said = lambda _: None
        self._stopped = None
        self._loop.resume_process(self.name, timers_first=False)
        await self._cancel()
        for link in self.links:
            link.close()
        await self.wiring.aclose()

    async def stop(self) -> None:
        """Stop as the app does; what is under way must be over."""
        await self._cancel()
        await self.wiring.aclose()
        for link in self.links:
            link.close()

    async def _cancel(self) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await self.wiring.guard.look()
            self._ready.set()
            await asyncio.sleep(LOOK_S)

    async def _beat(self) -> None:
        await self._ready.wait()
        await self.heartbeat.keep(lambda: self.wiring.guard.registry_state, self._beaten)

    def alone(self, kind: Kind) -> Sequence[int]:
        """Which of the times it is that calls need not wait, all masters being away; empty where one is not."""
        masters = sorted(kind.masters)
        if any(self._states[master] is BreakerState.CLOSED for master in masters):
            return ()
        return [self._times_away[master] for master in masters]

    def is_well(self, kind: Kind) -> bool:
        """Whether all of its masters are asked; one server is expected to be, once all faults are over."""
        return not self._layout.is_cluster or all(
            self._states[master] is BreakerState.CLOSED for master in kind.masters
        )

    def _changed(self) -> None:
        state = self.wiring.guard.state
        if self._closed and state is BreakerState.OPEN:
            self._set_share()
        self._closed = state is BreakerState.CLOSED
        for master, name in self._of_master.items():
            before, now = self._states[master], self.wiring.state_of(name)
            self._states[master] = now
            if now is not before:
                self.trips += now is BreakerState.OPEN
                self._times_away[master] += now is BreakerState.CLOSED
                self._said(f"breaker {now}" + (f" of master {master}" if self._layout.is_cluster else ""))

    def _set_share(self) -> None:
        """As the app does when the breaker opens."""
        if self._auto:
            share = self.policy.share = automatic_share(self.heartbeat.most_seen(), self._told)
            self.shares.append(share)
            self._said(f"reckons with a share of {share}")

    def _describe(self) -> Described:
        return Described(f"replica-{self.number}:8081", "1", "rules", str(self.wiring.guard.state))

    def _beaten(self, error: StoreError | None) -> None:
        if error is not None:
            self._said(f"the heartbeat failed: {error.kind}")
