"""The parent of several workers: accepts connections for them, reads the config for them, and shows them as one."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any, Final

from extauth.app import TLS_CHECK_S
from extauth.background import keep_up
from extauth.compat.hits import hits_table
from extauth.compat.metrics import ReferenceMetrics
from extauth.compat.ports import Ports
from extauth.compat.statsd import statsd_of
from extauth.core import STOP_GRACE_S
from extauth.front import Front, serving_facts
from extauth.lifecycle import Compose
from extauth.limiter.build import build_planner
from extauth.overview.feed import Sources
from extauth.parts import (
    counters_of,
    first_rules,
    follow_rules,
    metrics_of,
    reload_tls,
    rule_source,
    swap_rules,
    tls_of,
)
from extauth.rules.matcher import Matcher
from extauth.rules.model import RuleSet
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.gathered import GatheredMetrics
from extauth.telemetry.history import History
from extauth.telemetry.logs import logger
from extauth.telemetry.masked_names import MaskedNames
from extauth.transport.listening import clear_socket, open_port
from extauth.tuning import raise_descriptors
from extauth.workers.crew import Crew
from extauth.workers.spread import Spread
from extauth.workers.view import BreakerView, CallersView, ReplicasView, StoreView

GATHERING_CPU: Final = 0.01
LONGEST_PAUSE_S: Final = 5
ENDING_S: Final = 3.0
"""What a worker may need beyond its grace for calls: to take its heartbeat away, and to send its last spans."""


def fleet_of(workers: int) -> Compose:
    """What makes a service of several workers."""
    return lambda settings, environ: Fleet(settings, environ, workers)


class Fleet:
    """One running extauth of several workers."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], workers: int) -> None:
        self._settings = settings
        self._draining = False
        self._serving = False
        raise_descriptors()  # connections that are being handed over count here
        self._source = rule_source(settings)
        rules = first_rules(self._source, settings)
        self.planner = build_planner(rules, settings.limiter_options())
        self.masked = MaskedNames()
        self.masked.rules_loaded(rules)
        self.metrics = metrics_of(settings, self.masked, GatheredMetrics)
        self.reference: ReferenceMetrics | None = None
        if settings.compatible:
            self.reference = ReferenceMetrics(self.metrics, hits_table(), loaded=bool(rules.domains))
        self._counters = counters_of(settings)
        self._tls = tls_of(settings)
        self._crew = crew = Crew(workers, environ, self.metrics, rules)
        self._spread = Spread(lambda: crew.takers)
        history = History(self.metrics.changes)
        self._history = history
        callers, breaker = CallersView(crew), BreakerView(crew)
        self._sources = Sources(
            settings=settings,
            planner=self.planner,
            metrics=self.metrics,
            history=history,
            callers=callers,
            store=StoreView(crew),
            breaker=breaker,
            replicas=ReplicasView(crew, breaker),
            status=lambda: self.status,
        )
        self._front = Front(
            self._sources,
            self._counters,
            top=callers.of_all_replicas,
            gather=self._gather,
            stats=None if self.reference is None else self.reference.stats,
        )
        self._ports = Ports(
            settings,
            decide=crew.decide,
            healthy=self._front.healthy,
            scrape=(self.metrics if self.reference is None else self.reference).scrape,
            gather=self._gather,
        )

    @property
    def status(self) -> str:
        """`starting`, `ready` or `draining`; it is `ready` while one worker takes calls."""
        if self._draining:
            return "draining"
        return "ready" if self._serving and self._crew.ready else "starting"

    async def start(self, stack: AsyncExitStack) -> None:
        """Start all parts; `stack` takes them down in the reverse order.

        The gRPC port opens once all workers take calls, so that the first connections are spread over all of them.
        """
        stack.push_async_callback(self._counters.aclose)
        await self._front.admin.start()
        stack.push_async_callback(self._front.admin.stop)
        await self._ports.start(stack)
        stack.push_async_callback(self._crew.stop, STOP_GRACE_S + ENDING_S)
        await self._crew.start()
        keep_up(stack, self._keep_gathering)
        await self._gather()
        self._note_rules()
        keep_up(stack, self._follow_rules)
        await self._source.begun()
        self._spread.start(open_port(self._settings.grpc_listen))
        stack.callback(self._close_port)
        if (statsd := statsd_of(self._settings, self.reference, self._gather)) is not None:
            keep_up(stack, statsd.keep_sending)
        self._serving = True
        if self._tls is not None:
            keep_up(stack, self._follow_tls)
        logger().info("serving", **serving_facts(self._settings, self._sources), workers=self._crew.workers)

    async def drain(self) -> None:
        """Have health checks hear NOT_SERVING from each worker; calls are still answered."""
        self._draining = True
        await self._crew.drain()

    def _close_port(self) -> None:
        self._spread.stop()
        clear_socket(self._settings.grpc_listen)

    async def reload(self) -> None:
        """Read the config and the certificates again now, as after a change; what is wrong with them is logged."""
        if self._tls is not None and reload_tls(self._tls, unchanged=True):
            self._crew.tell("tls")
        await self._source.refresh()

    async def _gather(self) -> None:
        await self._crew.gather()

    async def _keep_gathering(self) -> None:
        """Ask the workers each second, for ever; where that takes more than GATHERING_CPU of a core, less often.

        What they have counted goes into the history at once: if each kept a clock of its own, seconds would get the
        calls of two, and others none.
        """
        due_s = monotonic()
        while True:
            spent_s = await self._crew.gather()
            for _ in self._history.sample():
                await asyncio.sleep(0)
            now_s = monotonic()
            due_s = max(due_s + min(1 + int(spent_s / GATHERING_CPU), LONGEST_PAUSE_S), now_s)
            await asyncio.sleep(due_s - now_s)

    async def _follow_tls(self) -> None:
        assert self._tls is not None  # noqa: S101
        while True:
            await asyncio.sleep(TLS_CHECK_S)
            if reload_tls(self._tls):
                self._crew.tell("tls")

    async def _follow_rules(self) -> None:
        await follow_rules(self._source, self._take_rules, self._front.reload_failed)

    async def _take_rules(self, rules: RuleSet) -> None:
        """Have the workers put rules in force, and then show them: what they counted before is of the rules before."""
        await self._crew.swap(rules)
        await self._gather()
        await swap_rules(rules, self)

    def swap(self, matcher: Matcher) -> list[dict[Any, Any]]:
        """As parts.InForce."""
        unused = self.planner.swap(matcher)
        self.metrics.reloaded(ok=not matcher.rules.problems)
        return unused + self._note_rules()

    def report_swap(self, before: RuleSet) -> None:
        """As parts.InForce."""
        matcher = self.planner.matcher
        events.rules_reloaded(matcher.rules, matcher.size, before)

    def _note_rules(self) -> list[dict[Any, Any]]:
        matcher = self.planner.matcher
        rules, ok = matcher.rules, not matcher.rules.problems
        remasked = self.masked.rules_loaded(rules)
        unused = self.metrics.rules_loaded(matcher.size, matcher.digest, ok=ok, remasked=remasked)
        unused += self.masked.unused()
        if remasked.domains:
            self._history.forget(remasked.domains)
            events.remasked(remasked.domains)
        events.rules_read(rules)
        return unused + self._front.overview.rules_loaded()
