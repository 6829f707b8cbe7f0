"""Parts of the service, from its settings."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from extauth.background import free_rules
from extauth.config.many_objects import collector_off, free_kept_objects, map_large_tables
from extauth.config.sources.files import FileSource
from extauth.config.sources.selection import Selection
from extauth.counters.memory import MemoryCounters
from extauth.counters.redis.opened import StoredCounters, open_counters
from extauth.errors import ConfigError, SettingsError
from extauth.limiter.build import Decider
from extauth.limiter.facts import Observer
from extauth.limiter.planner import Planner
from extauth.rules.masking import Masking, SecretKeys
from extauth.rules.matcher import Matcher
from extauth.rules.model import RuleSet
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.logs import logger
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.xds_log import XdsLog
from extauth.transport.batching import Batcher, Shed
from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.parted import PartedBatcher, PartOf
from extauth.transport.tls import Tls, TlsFiles

MANY_RULES: Final = 5000  # from here on the cycle collector is worth keeping away


class RuleSource(Protocol):
    """Where rules come from."""

    def read(self) -> RuleSet:
        """The rules to begin with; raises ConfigError where there are none."""

    def updates(self) -> AsyncIterator[RuleSet | ConfigError]:
        """Each later set of rules, or why there is none, while the rules in force stay."""

    async def refresh(self) -> None:
        """Have `updates` yield what there is now, changed or not; returns once that has been dealt with."""

    async def begun(self) -> None:
        """Return once there are rules to begin with: those of `read`, or others of `updates`, which are in force."""


def has_rules_enough(settings: Settings, rules: RuleSet) -> bool:
    """Whether there are as many rules as health checks ask for: a domain, where the settings say so."""
    return bool(rules.domains) or not settings.healthy_with_rules


async def follow_rules(
    source: RuleSource, take: Callable[[RuleSet], Awaitable[None]], failed: Callable[[ConfigError], None]
) -> None:
    """Have rules put in force by `take` as they come, for ever; `failed` hears why there are none."""
    async for rules in source.updates():
        if isinstance(rules, ConfigError):
            failed(rules)
        else:
            await take(rules)
            del rules  # or this would free them, all at once, when others come


def rule_source(settings: Settings) -> RuleSource:
    """Where the settings say that rules come from."""
    if isinstance(settings.config, Path):
        return FileSource(settings.config, merge=settings.merge_domains, selection=Selection.of(settings.config_files))
    from extauth.config.sources.xds import XdsSource  # noqa: PLC0415 - which files spare

    return XdsSource(
        settings.config,
        settings.xds_options(),
        XdsLog(str(settings.config)),
        merge=settings.merge_domains,
        secret=SecretKeys(settings.xds_secret_keys),
        cache=settings.config_cache,
        wait=not settings.start_without_rules,
    )


def counters_of(settings: Settings) -> "StoredCounters | MemoryCounters":
    """Where calls are counted."""
    if settings.counts_in_memory:
        return MemoryCounters(lambda: time.monotonic_ns() // 1000, settings.memory_bytes)
    url = settings.redis_url.get_secret_value()
    return open_counters(url, settings.redis_timeout, prefix=settings.key_prefix, evicts=events.store_evicts)


def first_rules(source: RuleSource, settings: Settings) -> RuleSet:
    """What to begin with; raises ConfigError where anything is wrong, or with `keep_going` where all is.

    With `start_without_rules`, none at all will do.
    """
    without = settings.start_without_rules
    try:
        rules = source.read()
    except ConfigError as error:
        if not without:
            raise
        return RuleSet(problems=error.problems)
    if rules.problems and not (settings.keep_going and (rules.domains or without)):
        raise ConfigError(rules.problems)
    return rules


def compile_rules(rules: RuleSet, masking: Masking) -> Matcher:
    """The rules as what requests are matched with."""
    if len(rules) < MANY_RULES:
        return Matcher(rules, masking)
    map_large_tables()
    with collector_off():
        return Matcher(rules, masking)


class InForce(Protocol):
    """What has rules in force."""

    @property
    def planner(self) -> Planner:
        """What calls are planned by."""

    @property
    def metrics(self) -> Metrics:
        """What counts them."""

    @property
    def masked(self) -> MaskedNames:
        """What is masked in names."""

    def swap(self, matcher: Matcher) -> list[dict[Any, Any]]:
        """Put the rules of a matcher in force; returns tables that are no longer used, to be emptied bit by bit."""
        ...

    def report_swap(self, before: RuleSet) -> None:
        """Report, in any thread, that other rules are in force than these."""
        ...


async def swap_rules(rules: RuleSet, holder: InForce) -> None:
    """Put other rules in force, in steps.

    Tables that are no longer used and the rules before are freed bit by bit, unless somebody else refers to these.
    """
    planner = holder.planner
    matcher = await asyncio.to_thread(_prepare, rules, holder)
    for _ in holder.metrics.before_rules():
        await asyncio.sleep(0)
    before = [planner.matcher]
    many = before[0].size >= MANY_RULES
    unused = holder.swap(matcher)
    await asyncio.to_thread(holder.report_swap, before[0].rules)
    await asyncio.to_thread(free_rules, before, unused)
    if many:
        await asyncio.to_thread(free_kept_objects)


def _prepare(rules: RuleSet, holder: InForce) -> Matcher:
    matcher = compile_rules(rules, holder.planner.matcher.masking)
    holder.planner.before_swap(matcher)
    holder.masked.before_rules(rules)
    return matcher


AnyMetrics = TypeVar("AnyMetrics", bound=Metrics)


def metrics_of(settings: Settings, masked: MaskedNames, kind: type[AnyMetrics]) -> AnyMetrics:
    """What is counted for Prometheus."""
    return kind(
        tuple(Guard),
        tuple(Shed),
        near_limit_ratio=settings.near_limit_ratio,
        everything_shadowed=settings.shadow_mode,
        masked=masked,
    )


def tls_of(settings: Settings) -> Tls | None:
    """What the gRPC port is served with, if it is."""
    if settings.grpc_tls_cert is None or settings.grpc_tls_key is None:
        return None
    files = TlsFiles(settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca)
    return Tls(files, settings.grpc_tls_client_san)


def reload_tls(tls: Tls, *, unchanged: bool = False) -> bool:
    """Load the certificates again if they have changed, or with `unchanged` in any case; returns whether they were.

    What is wrong with them is logged.
    """
    try:
        loaded = tls.reload(unchanged=unchanged)
    except SettingsError as error:
        logger().error("tls_rejected", reason=str(error), kept="the certificate in force stays")
        return False
    if loaded:
        logger().info("tls_reloaded")
    return loaded


def batcher_of(settings: Settings, decider: Decider, observers: Sequence[Observer], part_of: PartOf | None) -> Batcher:
    """What gathers calls into batches, apart for each part of the store where it has several."""
    kind = Batcher if part_of is None else partial(PartedBatcher, part_of=part_of)
    return kind(decider, observers, max_waiting=settings.max_waiting, denies=not settings.shadow_mode)


def limits_of(settings: Settings, max_connections: int) -> ConnectionLimits:
    """What a connection of the gRPC port may cost, of which there may be `max_connections`."""
    return ConnectionLimits(
        max_connections=max_connections,
        max_streams=settings.max_streams,
        max_message_bytes=settings.max_message_bytes,
        max_header_bytes=settings.max_header_bytes,
        max_continuations=settings.max_continuations,
        max_resets_per_s=settings.max_resets,
        max_control_frames_per_s=settings.max_control_frames,
        stall_timeout_s=settings.stall_timeout,
        max_age_s=settings.max_connection_age,
        age_grace_s=settings.max_connection_age_grace,
    )
