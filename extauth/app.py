"""The composition: one running service from its settings."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from extauth.admin.rules_json import view_rules
from extauth.admin.server import AdminServer, Readiness
from extauth.background import free_rules, keep_up
from extauth.config.sources.files import FileSource
from extauth.counters.breaker import Breaker, BreakerState
from extauth.counters.denial_cache import DenialCache
from extauth.counters.local import LocalCounters, SettlingCounters
from extauth.counters.redis.counters import RedisCounters
from extauth.counters.upkeep import keep_settled
from extauth.errors import ConfigError, SettingsError
from extauth.limiter.build import build
from extauth.limiter.counters import Counters
from extauth.limiter.facts import Observer
from extauth.overview.feed import Overview, Sources
from extauth.overview.page import live_page
from extauth.parts import RuleSource, compile_rules, counters_of, first_rules, limits_of, metrics_of, tls_of
from extauth.replicas import Replicas
from extauth.rules.matcher import Matcher
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.callers import Callers
from extauth.telemetry.decisions import DecisionLog, SampledPlanner
from extauth.telemetry.history import History
from extauth.telemetry.logs import logger
from extauth.telemetry.store_log import StoreLog
from extauth.telemetry.tracing import Tracing
from extauth.transport.batching import Batcher
from extauth.transport.engine import Engine, EngineContext
from extauth.transport.h2.server import H2Server
from extauth.transport.tls import Tls
from extauth.tuning import fitting_connections, raise_descriptors

STOP_GRACE_S = 5
STORE_CHECK_S = 1  # below CutOff's REACHED_FOR_S: by then each replica knows, too, that the store is away, or back
TLS_CHECK_S = 1
IN_MEMORY = "in this process: it must be the only replica, and its counts end with it"


class Service:
    """One running extauth."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self.settings = settings
        self._tracing = tracing
        self.draining = False
        self._serving = False
        self._store_tried = asyncio.Event()
        self.metrics = metrics_of(settings)
        self._source: RuleSource = FileSource(settings.config, merge=settings.merge_domains)
        rules = first_rules(self._source, keep_going=settings.keep_going)
        self.counters = counters_of(settings)
        self.local = LocalCounters(self.counters.now_us, settings.local_bytes)
        self.settling = SettlingCounters(self.counters, self.local)
        self.denials = DenialCache(self.settling, settings.denial_cache)
        cached = settings.denial_cache and not settings.counts_in_memory
        counters: Counters = self.denials if cached else self.counters if settings.counts_in_memory else self.settling
        self.store = StoreLog(events.store, events.CALLERS_GET[settings.on_store_failure])
        self.breaker = Breaker(counters, self._breaker_changed, self.metrics.store_failed)
        if isinstance(self.counters, RedisCounters):
            self.counters.when_reconnected(self.breaker.retry)
        options = replace(settings.limiter_options(), local=self.local)
        if settings.log_level == "debug":
            options = replace(options, planner=SampledPlanner)
        decider = build(rules, self.breaker, options)
        planner = self.planner = decider.planner
        self.metrics.watch_plan_memo(lambda: planner.lookups, lambda: planner.misses)
        self.history = History(self.metrics.changes)
        self.callers = Callers(planner.describe_counter)
        observers: list[Observer] = [self.metrics, self.store, self.callers]
        if isinstance(self.planner, SampledPlanner):
            observers.append(DecisionLog(self.planner, events.decision))
        if tracing is not None:
            observers.append(tracing)
        self.batcher = Batcher(decider, observers, max_waiting=settings.max_waiting, denies=not settings.shadow_mode)
        self.tls = tls_of(settings)
        policy = decider.limiter.policy
        self.replicas = Replicas(
            settings,
            policy,
            self.breaker,
            self._registry(),
            rules_digest=self._rules_digest,
            top=self.callers.look,
            tls=self.tls,
        )
        self.metrics.watch_replicas(self.replicas.seen, self.replicas.is_cut_off, self.replicas.share)
        self.engine = self._engine()
        self.overview = Overview(
            Sources(
                settings=settings,
                planner=planner,
                metrics=self.metrics,
                history=self.history,
                callers=self.callers,
                store=self.store,
                breaker=self.breaker,
                replicas=self.replicas,
                status=lambda: self.status,
            )
        )
        self.admin = AdminServer(
            settings.admin_listen,
            metrics=self.metrics.scrape,
            readiness=self.readiness,
            rules=self.view,
            top=self.top,
            live=live_page(self.overview, self.counters) if settings.page else None,
            hosts=settings.admin_hosts,
        )

    def _engine(self) -> Engine:
        settings = self.settings
        self.max_connections = fitting_connections(settings.max_connections, raise_descriptors())
        context = EngineContext(
            planner=self.planner,
            batcher=self.batcher,
            limits=limits_of(settings, self.max_connections),
            on_guard=self.metrics.guard_tripped,
            tls=self.tls,
            traced=self._tracing is not None or settings.log_level == "debug",
        )
        if settings.engine == "grpcio":
            from extauth.transport import grpcio  # noqa: PLC0415 - 30 MB that the other engine spares

            return grpcio.GrpcioServer(settings.grpc_listen, context)
        engine = H2Server(settings.grpc_listen, context)
        self.metrics.watch_connections(engine.count_connections, self.max_connections)
        return engine

    async def start(self, stack: AsyncExitStack) -> None:
        """Start all parts; `stack` takes them down in the reverse order.

        The gRPC port opens once the store was tried, so that no call is the first to find out that it is down.
        """
        if self._tracing is not None:
            self._tracing.start()
            stack.push_async_callback(self._tracing.aclose)
        stack.push_async_callback(self.counters.aclose)
        stack.push_async_callback(self.breaker.aclose)
        stack.push_async_callback(self.replicas.leave)
        await self.admin.start()
        stack.push_async_callback(self.admin.stop)
        keep_up(stack, self._check_store)
        keep_up(stack, self.history.keep)
        keep_up(stack, self._settle)
        keep_up(stack, self._follow_rules)
        if self.tls is not None:
            keep_up(stack, self._follow_tls)
        await self._store_tried.wait()
        keep_up(stack, self.replicas.keep_beating)
        await self.engine.start()
        stack.push_async_callback(self.engine.stop, STOP_GRACE_S)
        keep_up(stack, self.replicas.keep_asking)
        keep_up(stack, self._report)
        self._serving = True
        self._note_rules()
        settings = self.settings
        if self.max_connections < settings.max_connections:
            logger().warning(
                "max_connections_lowered",
                to=self.max_connections,
                reason="EXTAUTH_MAX_CONNECTIONS is more than this process may have open files for",
                fix="raise the limit of open files (ulimit -n, LimitNOFILE=, --ulimit nofile=…)",
            )
        logger().info(
            "serving",
            grpc=settings.grpc_listen,
            admin=settings.admin_listen,
            engine=settings.engine,
            tls="off" if self.tls is None else "on" if settings.grpc_tls_client_ca is None else "mutual",
            redis=settings.shown_redis_url(),
            **({"counters": IN_MEMORY} if settings.counts_in_memory else {}),
            on_store_failure=str(settings.on_store_failure),
            config=str(settings.config),
            domains=list(self.planner.matcher.rules.domains),
            rules=self.planner.matcher.size,
        )

    @property
    def status(self) -> str:
        """`starting`, `ready` or `draining`."""
        return "draining" if self.draining else "ready" if self._serving else "starting"

    def readiness(self) -> Readiness:
        """Ready from when the gRPC port is open until draining; the state of the store is a detail.

        Without the store calls are answered too, by the failure policy.
        """
        detail = {
            "status": self.status,
            "rules": self.planner.matcher.size,
            "store": str(self.store),
            "breaker": str(self.breaker.state),
            **self.replicas.detail(),
        }
        if self.settings.counts_in_memory:
            detail["counters"] = IN_MEMORY
        return Readiness(self.status == "ready", detail)

    def view(self) -> Iterator[str]:
        """The rules in force, masked, as JSON in pieces."""
        return view_rules(self.planner.matcher.rules, self.planner.matcher.masking)

    async def top(self) -> Iterator[str]:
        """Who is denied most, and who calls most, as JSON in pieces."""
        return (await self.replicas.top_of_all()).json()

    def _registry(self) -> RedisCounters | None:
        return self.counters if isinstance(self.counters, RedisCounters) else None

    def _rules_digest(self) -> str:
        return self.planner.matcher.rules.digest

    async def _report(self) -> None:
        await self.replicas.keep_reporting(self.engine)

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
        await keep_settled(self.breaker, self.settling)

    async def reload(self) -> None:
        """Read the config and the certificates again now, as after a change; what is wrong with them is logged."""
        if self.tls is not None:
            self._load_tls(self.tls, unchanged=True)
        await self._source.refresh()

    async def _follow_rules(self) -> None:
        async for rules in self._source.updates():
            if isinstance(rules, ConfigError):
                self._reload_failed(rules)
            else:
                matcher = await asyncio.to_thread(compile_rules, rules, self.planner.matcher.masking)
                for _ in self.metrics.before_rules():
                    await asyncio.sleep(0)
                before = [self.planner.matcher]
                unused = self._swap(matcher)
                del rules, matcher  # or this would free them, all at once, when others come
                await asyncio.to_thread(free_rules, before, unused)

    def _swap(self, matcher: Matcher) -> list[dict[Any, Any]]:
        before = self.planner.matcher.rules
        unused = self.planner.swap(matcher) + self.denials.forget()
        self.metrics.reloaded(ok=not matcher.rules.problems)
        unused += self._note_rules()
        events.rules_reloaded(matcher.rules, matcher.size, before)
        return unused

    def _note_rules(self) -> list[dict[Any, Any]]:
        matcher = self.planner.matcher
        unused = self.metrics.rules_loaded(matcher.size, matcher.rules.digest, ok=not matcher.rules.problems)
        self.callers.rules_loaded(matcher.rules)
        events.rules_read(matcher.rules)
        return unused + self.overview.rules_loaded()

    async def _follow_tls(self) -> None:
        assert self.tls is not None  # noqa: S101
        while True:
            await asyncio.sleep(TLS_CHECK_S)
            self._load_tls(self.tls)

    def _load_tls(self, tls: Tls, *, unchanged: bool = False) -> None:
        try:
            if tls.reload(unchanged=unchanged):
                logger().info("tls_reloaded")
        except SettingsError as error:
            logger().error("tls_rejected", reason=str(error), kept="the certificate in force stays")

    def _reload_failed(self, error: ConfigError) -> None:
        self.metrics.reloaded(ok=False)
        self.overview.reload_failed(error)
        events.reload_failed(error)
