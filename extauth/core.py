"""What decides calls: all of a service but its admin port, or a worker of one."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from extauth.background import keep_up
from extauth.compat.hits import ReferenceHits
from extauth.compat.metrics import ReferenceMetrics
from extauth.counters.breaker import BreakerState
from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import build
from extauth.limiter.facts import Observer
from extauth.parts import batcher_of, has_rules_enough, limits_of, metrics_of, swap_rules, tls_of
from extauth.replicas import ALONE, Place, Replicas
from extauth.rules.matcher import Matcher
from extauth.rules.model import RuleSet
from extauth.settings import Settings
from extauth.store import store_of
from extauth.telemetry import events
from extauth.telemetry.callers import Callers
from extauth.telemetry.decisions import DecisionLog, SampledPlanner
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.store_log import StoreLog
from extauth.telemetry.tracing import Tracing
from extauth.transport.engine import Engine, EngineContext
from extauth.transport.h2.server import H2Server
from extauth.transport.handover import HandedConnections
from extauth.tuning import fitting_connections, raise_descriptors

STOP_GRACE_S: Final = 5
STORE_CHECK_S = 1  # below CutOff's REACHED_FOR_S: by then each replica knows, too, that the store is away, or back


class Core:
    """What decides calls by `rules`, at first.

    In the `place` of a worker, `handed` gives it its connections.
    """

    def __init__(
        self,
        settings: Settings,
        rules: RuleSet,
        tracing: Tracing | None = None,
        *,
        place: Place = ALONE,
        handed: HandedConnections | None = None,
    ) -> None:
        self.settings = settings
        self._tracing = tracing
        self._store_tried = asyncio.Event()
        self.masked = MaskedNames() if tracing is None else tracing.masked
        self.masked.rules_loaded(rules)
        self.metrics = metrics_of(settings, self.masked, Metrics)
        self._parts = store_of(settings, self._breaker_changed, self.metrics.store_failed)
        self.counters, self.breaker = self._parts.counters, self._parts.breaker
        self.store = StoreLog(events.store, events.CALLERS_GET[settings.on_store_failure])
        options = replace(settings.limiter_options(), local=self._parts.local)
        if settings.log_level == "debug":
            options = replace(options, planner=SampledPlanner)
        decider = build(rules, self._parts.asked, options)
        planner = self.planner = decider.planner
        self.metrics.watch_plan_memo(planner)
        self.callers = Callers(planner, self.masked)
        observers: list[Observer] = [self.metrics, self.store, self.callers]
        if isinstance(self.planner, SampledPlanner):
            observers.append(DecisionLog(self.planner, events.decision))
        if tracing is not None:
            observers.append(tracing)
        self.reference: ReferenceMetrics | None = None
        self._hits: ReferenceHits | None = None
        if settings.compatible:
            hits = self._hits = ReferenceHits(settings.near_limit_ratio, self.masked)
            self.reference = ReferenceMetrics(self.metrics, hits.table, loaded=bool(rules.domains))
            observers.append(hits)
        self.batcher = batcher_of(settings, decider, observers, self._parts.part_of)
        self.tls = tls_of(settings)
        self.replicas = Replicas(
            settings,
            decider.limiter.policy,
            self.breaker,
            None if isinstance(self.counters, MemoryCounters) else self.counters,
            planner=planner,
            top=self.callers.look,
            tls=self.tls,
            place=place,
        )
        self.metrics.watch_replicas(self.replicas.seen, self.replicas.is_cut_off, self.replicas.share)
        self.engine = self._engine(handed)

    def _engine(self, handed: HandedConnections | None) -> Engine:
        settings = self.settings
        self.max_connections = fitting_connections(settings.max_connections, raise_descriptors())
        context = EngineContext(
            planner=self.planner,
            batcher=self.batcher,
            limits=limits_of(settings, self.max_connections),
            on_guard=self.metrics.guard_tripped,
            tls=self.tls,
            reflection=settings.reflection,
            traced=self._tracing is not None or settings.log_level == "debug",
        )
        if settings.engine == "grpcio":
            from extauth.transport import grpcio  # noqa: PLC0415 - 30 MB that the other engine spares

            return grpcio.GrpcioServer(settings.grpc_listen, context)
        engine = H2Server(settings.grpc_listen, context, handed)
        self.metrics.watch_connections(engine.count_connections, self.max_connections)
        return engine

    async def open(self, stack: AsyncExitStack) -> None:
        """Begin; `stack` ends all that is begun, in the reverse order."""
        if self._tracing is not None:
            self._tracing.start()
            stack.push_async_callback(self._tracing.aclose)
        stack.push_async_callback(self.counters.aclose)
        stack.push_async_callback(self._parts.aclose)
        stack.push_async_callback(self.replicas.leave)

    async def serve(self, stack: AsyncExitStack) -> None:
        """Ask the store once and then, whether it answered or not, take calls."""
        keep_up(stack, self._check_store)
        keep_up(stack, self._settle)
        await self._store_tried.wait()
        keep_up(stack, self.replicas.keep_beating)
        await self.engine.start()
        stack.push_async_callback(self.engine.stop, STOP_GRACE_S)
        keep_up(stack, self.replicas.keep_asking)
        keep_up(stack, self._report)
        self.note_rules()
        if self.max_connections < self.settings.max_connections:
            events.max_connections_lowered(self.max_connections)

    async def take_rules(self, rules: RuleSet) -> None:
        """Put other rules in force, in steps."""
        await swap_rules(rules, self)

    def swap(self, matcher: Matcher) -> list[dict[Any, Any]]:
        """Put the rules of a matcher in force; returns tables that are no longer used, to be emptied bit by bit."""
        unused = self.planner.swap(matcher) + self._parts.forget_denials()
        self.metrics.reloaded(ok=not matcher.rules.problems)
        return unused + self.note_rules()

    def report_swap(self, before: RuleSet) -> None:
        """Report that other rules are in force than these."""

    def note_rules(self) -> list[dict[Any, Any]]:
        """Note the rules in force; returns tables that are no longer used, to be emptied bit by bit."""
        matcher = self.planner.matcher
        rules, ok = matcher.rules, not matcher.rules.problems
        remasked = self.masked.rules_loaded(rules)
        unused = self.metrics.rules_loaded(matcher.size, matcher.digest, ok=ok, remasked=remasked)
        unused += self.masked.unused()
        self.callers.rules_loaded(remasked.domains)
        if self._hits is not None:
            unused += self._hits.rules_loaded()
        self.replicas.health_changed()
        if remasked.domains:
            self.forget_names(remasked.domains)
        return unused

    def forget_names(self, domains: frozenset[str]) -> None:
        """Forget the names of domains whose masking is another since rules were loaded."""

    async def _report(self) -> None:
        await self.replicas.keep_reporting(
            self.engine, lambda: has_rules_enough(self.settings, self.planner.matcher.rules)
        )

    def _breaker_changed(self) -> None:
        breaker = self.breaker
        self.metrics.breaker_changed(breaker.state)
        self.replicas.breaker_changed()
        if breaker.state is BreakerState.CLOSED:
            self.store.changed(None)
        elif breaker.state is BreakerState.OPEN:
            self.store.changed(breaker.cause)

    async def _check_store(self) -> None:
        while True:
            await self.breaker.look()
            if not self._store_tried.is_set():
                self._breaker_changed()
                self._store_tried.set()
            self.store.look()
            await asyncio.sleep(STORE_CHECK_S)

    async def _settle(self) -> None:
        await self._parts.keep_settled()
