"""Log events about the rules and the store, each with its effect on callers."""

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

from extauth.errors import ConfigError, Diagnostic
from extauth.rules.model import OnStoreFailure, RuleSet
from extauth.telemetry.logs import logger

MOST_NAMED: Final = 50
"""Names in a line."""
MOST_LINES: Final = 100
"""For problems and warnings of a config, of which there are up to 51 a file."""
MOST_CHARS: Final = 256

CALLERS_GET = {
    OnStoreFailure.LOCAL: "each replica counts by itself, from where the store was",
    OnStoreFailure.ALLOW: "every call is let through, and counted nowhere",
    OnStoreFailure.DENY: "every call is denied",
    OnStoreFailure.ERROR: "every call fails, and Envoy's failure_mode_deny decides",
}


def compatible_mode(understood: Collection[str], no_effect: Collection[str], overridden: Collection[str]) -> None:
    """Log what became of envoyproxy/ratelimit's variables; a warning, as there: its own default shows nothing less."""
    logger().warning(
        "compatible_mode",
        understood=list(understood),
        no_effect=list(no_effect),
        overridden=list(overridden),
        refused=[],
    )


def statsd_unreachable(address: str, reason: str) -> None:
    """Log that nobody takes the metrics."""
    logger().warning("statsd_unreachable", address=address, reason=reason, effect="counts wait until somebody listens")


def statsd_reached(address: str) -> None:
    """Log that somebody does again."""
    logger().info("statsd_reached", address=address)


def store(level: str, event: str, **facts: str | float) -> None:
    """Log what StoreLog has to say."""
    getattr(logger(), level)(event, **facts)


def store_evicts(reason: str) -> None:
    """Log that the store throws counters away where its memory is used up."""
    logger().warning("store_evicts", reason=reason, fix="set its maxmemory-policy to noeviction")


def rules_read(rules: RuleSet) -> None:
    """Log the errors and the probable mistakes in the config files."""
    _each("error", "config_rejected", rules.problems, kept="the domain keeps its earlier rules, if it had any")
    _each("warning", "config_warning", rules.warnings)


def rules_reloaded(rules: RuleSet, size: int, before: RuleSet) -> None:
    """Log that other rules are in force, at least for some domains; `size` is the number of rules."""
    if gone := before.domains.keys() - rules.domains.keys():
        logger().warning("domains_gone", domains=some_names(gone), effect="calls for them are no longer limited")
    if not rules.retained:
        logger().info("config_reloaded", domains=some_names(rules.domains), rules=size)
    elif rules.digest != before.digest:
        logger().warning(
            "config_reloaded_in_part",
            reloaded=some_names([name for name in rules.domains if name not in rules.retained]),
            not_reloaded=some_names(rules.retained),
            effect="the domains that were not reloaded keep the rules that they had",
        )


def remasked(domains: Collection[str]) -> None:
    """Log that other values of these domains are masked than before."""
    effect = "what was counted of their rules begins anew"
    logger().info("masking_changed", domains=some_names(domains), effect=effect)


def reload_failed(error: ConfigError) -> None:
    """Log that the config could not be read at all."""
    _each("error", "config_rejected", error.problems, kept="the rules in force stay")


def traces(lost: str | None) -> None:
    """Log that traces are lost, for this reason, or that they are sent again."""
    if lost is None:
        logger().info("traces_sent")
    else:
        logger().warning("traces_lost", reason=lost, effect="decisions do not wait for it; their spans are dropped")


def tracing_off(reason: str, fix: str) -> None:
    """Log that traces are wanted and cannot be sent."""
    logger().warning("tracing_off", reason=reason, fix=fix)


def tracing_variable(reason: str) -> None:
    """Log what the SDK finds wrong with a variable OTEL_*."""
    logger().warning("tracing_variable", reason=reason, fix="see the variables OTEL_*; what is wrong is ignored")


def max_connections_lowered(to: int) -> None:
    """Log that fewer connections are accepted than are set."""
    logger().warning(
        "max_connections_lowered",
        to=to,
        reason="EXTAUTH_MAX_CONNECTIONS is more than this process may have open files for",
        fix="raise the limit of open files (ulimit -n, LimitNOFILE=, --ulimit nofile=…)",
    )


def decision(facts: dict[str, Any]) -> None:
    """Log a decision of the sample."""
    logger().debug("decision", **facts)


def some_names(names: Collection[str]) -> list[str]:
    """The first of the names, those of a set in order, each shortened if it is long, and how many more there are."""
    first = nsmallest(MOST_NAMED, names) if isinstance(names, AbstractSet) else islice(names, MOST_NAMED)
    some = [name if len(name) <= MOST_CHARS else name[:MOST_CHARS] + "…" for name in first]
    return some if len(names) <= MOST_NAMED else [*some, f"and {len(names) - MOST_NAMED} more"]


def _each(level: str, event: str, diagnostics: Sequence[Diagnostic], **facts: str) -> None:
    """Log the first diagnostics, a line each, and how many more there are."""
    problems: Iterable[str] = map(str, diagnostics[:MOST_LINES])
    if len(diagnostics) > MOST_LINES:
        problems = [*problems, f"and {len(diagnostics) - MOST_LINES} more"]
    for problem in problems:
        getattr(logger(), level)(event, problem=problem, **facts)
