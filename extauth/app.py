"""The composition: one running service from its settings."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from extauth.background import keep_up
from extauth.compat.ports import Ports
from extauth.compat.statsd import statsd_of
from extauth.core import STOP_GRACE_S, Core
from extauth.front import Front, serving_facts
from extauth.overview.feed import Sources
from extauth.parts import first_rules, follow_rules, reload_tls, rule_source
from extauth.rules.model import RuleSet
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.history import History
from extauth.telemetry.logs import logger
from extauth.telemetry.tracing import Tracing
from extauth.transport.single_call import decide_call

__all__ = ["STOP_GRACE_S", "TLS_CHECK_S", "Service"]

TLS_CHECK_S = 1


class Service(Core):
    """One running extauth."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self._source = rule_source(settings)
        super().__init__(settings, first_rules(self._source, settings), tracing)
        self._draining = False
        self._serving = False
        self.history = History(self.metrics.changes)
        self._sources = Sources(
            settings=settings,
            planner=self.planner,
            metrics=self.metrics,
            history=self.history,
            callers=self.callers,
            store=self.store,
            breaker=self.breaker,
            replicas=self.replicas,
            status=lambda: self.status,
        )
        reference = self.reference
        self.front = Front(
            self._sources,
            self.counters,
            top=self.replicas.top_of_all,
            stats=None if reference is None else reference.stats,
        )
        self._ports = Ports(
            settings,
            decide=partial(decide_call, self.planner, self.batcher),
            healthy=self.front.healthy,
            scrape=(self.metrics if reference is None else reference).scrape,
        )

    async def start(self, stack: AsyncExitStack) -> None:
        """Start all parts; `stack` takes them down in the reverse order.

        The gRPC port opens once the store was tried, so that no call is the first to find out that it is down.
        """
        await self.open(stack)
        await self.front.admin.start()
        stack.push_async_callback(self.front.admin.stop)
        await self._ports.start(stack)
        keep_up(stack, self.history.keep)
        if (statsd := statsd_of(self.settings, self.reference)) is not None:
            keep_up(stack, statsd.keep_sending)
        keep_up(stack, self._follow_rules)
        if self.tls is not None:
            keep_up(stack, self._follow_tls)
        await self._source.begun()
        await self.serve(stack)
        self._serving = True
        logger().info("serving", **serving_facts(self.settings, self._sources))

    async def drain(self) -> None:
        """Have health checks hear NOT_SERVING; calls are still answered."""
        self._draining = True
        await self.engine.drain()

    @property
    def status(self) -> str:
        """`starting`, `ready` or `draining`."""
        return "draining" if self._draining else "ready" if self._serving else "starting"

    async def reload(self) -> None:
        """Read the config and the certificates again now, as after a change; what is wrong with them is logged."""
        if self.tls is not None:
            reload_tls(self.tls, unchanged=True)
        await self._source.refresh()

    async def _follow_rules(self) -> None:
        await follow_rules(self._source, self.take_rules, self.front.reload_failed)

    def report_swap(self, before: RuleSet) -> None:
        """As Core.report_swap."""
        matcher = self.planner.matcher
        events.rules_reloaded(matcher.rules, matcher.size, before)

    def forget_names(self, domains: frozenset[str]) -> None:
        """As Core.forget_names."""
        self.history.forget(domains)
        events.remasked(domains)

    def note_rules(self) -> list[dict[Any, Any]]:
        """As Core.note_rules."""
        unused = super().note_rules()
        events.rules_read(self.planner.matcher.rules)
        return unused + self.front.overview.rules_loaded()

    async def _follow_tls(self) -> None:
        assert self.tls is not None  # noqa: S101
        while True:
            await asyncio.sleep(TLS_CHECK_S)
            reload_tls(self.tls)
