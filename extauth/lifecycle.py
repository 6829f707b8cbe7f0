"""Runs the service in this process: from the first log line to the last, and what the process is tuned to."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol, TypeAlias

from extauth.app import Service
from extauth.background import keep_up
from extauth.compat.variables import reference_variables
from extauth.freed_memory import give_memory_back
from extauth.settings import LogFormat, Settings, unknown_variables
from extauth.systemd import ServiceManager
from extauth.telemetry.logs import configure_logs, logger
from extauth.telemetry.open_tracing import open_tracing
from extauth.telemetry.tracing import Tracing


class Running(Protocol):
    """A service that runs in this process, or whose workers it runs."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Start, until calls are taken; `stack` takes everything down."""
        ...

    async def reload(self) -> None:
        """Read the config and the certificates again."""
        ...

    async def drain(self) -> None:
        """Have health checks hear NOT_SERVING; calls are still answered."""
        ...


Compose: TypeAlias = Callable[[Settings, Mapping[str, str]], Running]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop's loop, or None, asyncio's own, where there is no uvloop."""
    try:
        import uvloop  # noqa: PLC0415 - where there is one
    except ImportError:
        return None
    return uvloop.new_event_loop


def replica_name(settings: Settings) -> str:
    """What logs and traces call this replica."""
    return settings.advertise or socket.gethostname()


def alone(settings: Settings, environ: Mapping[str, str]) -> Service:
    """A service that decides all calls in this process."""
    return Service(settings, traces_of(settings, environ))


def traces_of(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """What sends the spans of this process, if they are wanted."""
    store = None if settings.counts_in_memory else settings.shown_redis_url()
    return open_tracing(environ, replica=replica_name(settings), store=store)


def warn_of_reference(environ: Mapping[str, str]) -> None:
    """Log the variables of envoyproxy/ratelimit that are set, and are not read."""
    for warning in reference_variables(environ):
        logger().warning("reference_variable", reason=warning, fix="set that, or start `extauth ratelimit`")


async def serve(
    settings: Settings,
    environ: Mapping[str, str],
    compose: Compose = alone,
    announce: Callable[[Mapping[str, str]], None] = warn_of_reference,
) -> None:
    """Run until SIGTERM or SIGINT; raises ConfigError or SettingsError where it cannot start.

    On SIGHUP the config and the certificates are read again. From SIGTERM or SIGINT on, health checks hear NOT_SERVING
    while calls are still answered, for the drain delay or until a second signal: the time in which Envoy learns to ask
    elsewhere. Then calls in flight are answered, and it ends. `announce` logs what there is to say of the environment.
    """
    log_as(settings)
    announce(environ)
    stopping, hurry, hangup = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report_error)

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    manager = ServiceManager(environ)
    async with AsyncExitStack() as stack:
        if manager.watchdog_s:
            keep_up(stack, manager.keep_watchdog_quiet)
        service = compose(settings, environ)
        tune_python()
        if not await _started(service, stack, stopping):
            logger().info("stopped")
            return

        async def reload() -> None:
            while True:
                await hangup.wait()
                hangup.clear()
                logger().info("reloading", reason="SIGHUP")
                manager.reloading()
                try:
                    await service.reload()
                finally:
                    if not stopping.is_set():
                        manager.ready()

        keep_up(stack, give_memory_back)
        keep_up(stack, reload)
        manager.ready()
        for warning in unknown_variables(environ):
            logger().warning("unknown_variable", reason=warning)
        await stopping.wait()
        manager.stopping()
        await _drain(service, settings.drain_delay, hurry)
    logger().info("stopped")


def log_as(settings: Settings) -> None:
    """Have this process log as the settings say."""
    json = settings.log_format is LogFormat.JSON
    configure_logs(settings.log_level, json=json, replica=replica_name(settings))


def report_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what went wrong in the event loop, except for look-ups of names that nobody waits for any more.

    uvloop goes on with the look-up of a connection that was given up, and reports that it failed, seconds later, as an
    exception that was never retrieved. Why there is no connection was logged before (`store_down`).
    """
    if "future" in context and isinstance(context.get("exception"), socket.gaierror):
        return
    loop.default_exception_handler(context)


async def _started(service: Running, stack: AsyncExitStack, stopping: asyncio.Event) -> bool:
    """Start the service, which may have to wait for its first rules; returns False where it is to stop before."""
    starting = asyncio.create_task(service.start(stack))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if not starting.done():
            starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    return not starting.cancelled()


async def _drain(service: Running, delay_s: float, hurry: asyncio.Event) -> None:
    """Report NOT_SERVING for the delay, or until `hurry` is set, while calls are answered."""
    logger().info("draining", delay_s=delay_s)
    await service.drain()
    with suppress(TimeoutError):
        await asyncio.wait_for(hurry.wait(), delay_s)


def tune_python() -> None:
    """Keep Python's cycle collector from walking over all remembered plans again and again: they hold no cycles.

    What is there when serving begins is never looked at; young objects are, in small portions; old ones hardly ever.
    And let whatever else runs in this process, such as the reading of a large file, hand the interpreter over quickly.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10_000)
    sys.setswitchinterval(0.001)
