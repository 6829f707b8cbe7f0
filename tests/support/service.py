"""What decides calls, as the app composes it, from the text of a config."""

from extauth.config.merge import load_rules
from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import DEFAULTS, Decider, LimiterOptions, build, build_planner
from extauth.limiter.counters import ShardedCounters
from extauth.limiter.planner import Planner
from extauth.rules.model import RuleSet
from tests.support.clock import Clock


def decider_of(
    config: str = "", counters: ShardedCounters | None = None, options: LimiterOptions = DEFAULTS
) -> Decider:
    """Without a config it has no rules, which plans made by hand do without; counters are in memory by default."""
    return build(_rules(config), MemoryCounters(Clock()) if counters is None else counters, options)


def planner_of(config: str, options: LimiterOptions = DEFAULTS) -> Planner:
    return build_planner(_rules(config), options)


def _rules(config: str) -> RuleSet:
    return load_rules({"f.yaml": config}) if config else RuleSet()
