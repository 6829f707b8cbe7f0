"""What the log says of the rules and of the store: each event with what it means for callers."""

from typing import Any

from extauth.errors import ConfigError, StoreError
from extauth.rules.model import OnStoreFailure, RuleSet
from extauth.telemetry.logs import logger

_CALLERS_GET = {
    OnStoreFailure.ALLOW: "every call is let through, and counted nowhere",
    OnStoreFailure.DENY: "every call is denied",
    OnStoreFailure.ERROR: "every call fails, and Envoy's failure_mode_deny decides",
}


def store_changed(error: StoreError | None, policy: OnStoreFailure) -> None:
    """The store counts again, or why it does not."""
    if error is None:
        logger().info("store_up")
    else:
        logger().error("store_down", kind=error.kind, reason=str(error), callers_get=_CALLERS_GET[policy])


def rules_read(rules: RuleSet) -> None:
    """What is wrong with the files, or looks like a mistake."""
    for problem in rules.problems:
        logger().error(
            "config_rejected", problem=str(problem), kept="what was in force for the domain stays, if anything was"
        )
    for warning in rules.warnings:
        logger().warning("config_warning", problem=str(warning))


def rules_reloaded(rules: RuleSet, size: int, before: RuleSet) -> None:
    """Other rules are in force, for some domains at least; `size` is how many there are."""
    domains = list(rules.domains)
    if gone := sorted(before.domains.keys() - rules.domains.keys()):
        logger().warning("domains_gone", domains=gone, effect="calls for them are no longer limited")
    if not rules.retained:
        logger().info("config_reloaded", domains=domains, rules=size)
    elif rules.digest != before.digest:
        logger().warning(
            "config_reloaded_in_part",
            reloaded=[name for name in domains if name not in rules.retained],
            not_reloaded=sorted(rules.retained),
            effect="the domains that were not reloaded keep the rules that they had",
        )


def reload_failed(error: ConfigError) -> None:
    """Nothing could be read at all."""
    for problem in error.problems:
        logger().error("config_rejected", problem=str(problem), kept="the rules in force stay")


def decision(facts: dict[str, Any]) -> None:
    """One of the sample."""
    logger().debug("decision", **facts)
