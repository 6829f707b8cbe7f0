"""Builds the whole service and takes it down."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

from extauth.admin.server import AdminServer, Readiness
from extauth.admin.view import view_rules
from extauth.counters.keys import KeyNamer
from extauth.counters.redis import RedisCounters, connect
from extauth.errors import ConfigError, StoreError
from extauth.limiter.limiter import Limiter
from extauth.limiter.plan import Planner
from extauth.rules.matcher import Matcher
from extauth.rules.model import RuleSet
from extauth.rules.reload import read_rules, watch_rules
from extauth.settings import LogFormat, Settings, unknown_variables
from extauth.telemetry.logs import configure_logs, logger
from extauth.telemetry.metrics import CONTENT_TYPE, Metrics
from extauth.transport.batching import Batcher
from extauth.transport.grpcio import GrpcioServer
from extauth.transport.rls import decode_request

STOP_GRACE_S = 5
STORE_CHECK_S = 2


async def serve(settings: Settings, environ: dict[str, str]) -> None:
    """Run until SIGTERM or SIGINT; raises ConfigError or SettingsError where it cannot start.

    From the signal on, health checks hear NOT_SERVING while calls are still answered, for the drain delay or until a
    second signal: the time in which Envoy learns to ask elsewhere. Then calls in flight are answered, and it ends.
    """
    configure_logs(settings.log_level, json=settings.log_format is LogFormat.JSON)
    stopping, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with AsyncExitStack() as stack:
        service = Service(settings)
        await service.start(stack)
        for warning in unknown_variables(environ):
            logger().warning("unknown_variable", reason=warning)
        await stopping.wait()
        logger().info("draining", delay_s=settings.drain_delay)
        service.draining = True
        await service.engine.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), settings.drain_delay)
    logger().info("stopped")


class Service:
    """One running extauth."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.metrics = Metrics(settings.on_store_failure)
        self.name_counter = KeyNamer(settings.key_prefix, settings.key_secret.get_secret_value())
        self.planner = Planner(Matcher(read_rules(settings.config)), decode_request, self.name_counter)
        self.redis = connect(settings.redis_url.get_secret_value())
        self.counters = RedisCounters(self.redis, settings.redis_timeout)
        limiter = Limiter(self.counters, settings.on_store_failure)
        batcher = Batcher(limiter, self.metrics.batch_decided)
        self.engine = GrpcioServer(settings.grpc_listen, self.planner, batcher)
        self.admin = AdminServer(
            settings.admin_listen,
            metrics=self.metrics.render,
            metrics_type=CONTENT_TYPE,
            readiness=self.readiness,
            rules=self.view,
        )
        self._store_was_up: bool | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        """Start all parts; `stack` takes them down in the reverse order."""
        stack.push_async_callback(self.redis.aclose)
        await self.admin.start()
        stack.push_async_callback(self.admin.stop)
        stack.push_async_callback(_cancel, asyncio.create_task(_keep_up(self._check_store)))
        stack.push_async_callback(_cancel, asyncio.create_task(_keep_up(self._reload)))
        await self.engine.start()
        stack.push_async_callback(self.engine.stop, STOP_GRACE_S)
        self.metrics.rules_loaded(len(self.planner.matcher.rules))
        settings = self.settings
        logger().info(
            "serving",
            grpc=settings.grpc_listen,
            admin=settings.admin_listen,
            engine=settings.engine,
            redis=settings.shown_redis_url(),
            on_store_failure=str(settings.on_store_failure),
            config=str(settings.config),
            domains=list(self.planner.matcher.rules.domains),
            rules=len(self.planner.matcher.rules),
        )

    async def readiness(self) -> Readiness:
        """Ready while not draining; what the store says is a detail, for without it calls are answered too."""
        store = await self._ask_store()
        detail = {
            "status": "draining" if self.draining else "ready",
            "rules": len(self.planner.matcher.rules),
            "store": "up" if store is None else f"down: {store}",
        }
        return Readiness(not self.draining, detail)

    def view(self) -> dict[str, Any]:
        """The rules in force, masked."""
        return view_rules(self.planner.matcher.rules, self.name_counter.fingerprint)

    async def _ask_store(self) -> StoreError | None:
        error = None
        try:
            await self.counters.ping()
        except StoreError as store_error:
            error = store_error
        self.metrics.store_asked(error)
        if self._store_was_up is not (error is None):
            self._store_was_up = error is None
            if error is None:
                logger().info("store_up")
            else:
                logger().error("store_down", reason=str(error))
        return error

    async def _check_store(self) -> None:
        while True:
            await self._ask_store()
            await asyncio.sleep(STORE_CHECK_S)

    async def _reload(self) -> None:
        async for rules in watch_rules(self.settings.config, self._reload_failed):
            self._swap(rules)

    def _swap(self, rules: RuleSet) -> None:
        if gone := sorted(set(self.planner.matcher.rules.domains) - set(rules.domains)):
            logger().warning("domains_gone", domains=gone, effect="calls for them are no longer limited")
        self.planner.swap(Matcher(rules))
        self.metrics.rules_loaded(len(rules))
        self.metrics.reloaded(ok=True)
        logger().info("config_reloaded", domains=list(rules.domains), rules=len(rules))

    def _reload_failed(self, error: ConfigError) -> None:
        self.metrics.reloaded(ok=False)
        for problem in error.problems:
            logger().error("config_rejected", problem=str(problem), kept="the rules in force stay")


async def _keep_up(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` for ever: an error that nobody foresaw is logged, and costs a pause, not the work."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever it is, calls are served meanwhile
            logger().exception("background_work_failed", work=work.__name__)
        await asyncio.sleep(1)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
