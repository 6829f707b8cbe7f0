"""Callers that are decided about by rules, and counted."""

from collections.abc import Mapping, Sequence

from extauth.counters.memory import MemoryCounters
from extauth.explain.request import read_descriptor
from extauth.limiter.build import Decider
from extauth.limiter.facts import BatchFact
from extauth.rls.encode import encode_request
from extauth.rules.matcher import Matcher
from extauth.telemetry.callers import Callers
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.top import RuleTop
from tests.support.clock import NOON, Clock, Seconds
from tests.support.service import decider_of

CONFIG = """
domain: d
labels: [path]
descriptors:
  - {key: ip, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: api_key, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: api_key, value: a-known-key, rate_limit: {unit: year, requests_per_unit: 5}}
  - {key: both, rate_limits: [{unit: day, requests_per_unit: 2}, {unit: year, requests_per_unit: 1}]}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: file, value: "a/*", share_threshold: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: tenant, descriptors: [{key: user, rate_limit: {unit: year, requests_per_unit: 1}}]}
  - {key: named, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}
"""
NOON_S = NOON / 1_000_000


class CallersRig:
    """Callers that are decided about by rules, and counted; time passes when told to."""

    def __init__(self, config: str = CONFIG, drawn: Sequence[float] = (), decider: Decider | None = None) -> None:
        self.decider = decider or decider_of(config, MemoryCounters(Clock()))
        self.clock = Seconds()
        self.began_s = self.clock.now
        draws = iter(drawn)
        self.masked = MaskedNames()
        self.callers = Callers(
            self.decider.planner,
            self.masked,
            clock=self.clock,
            wall_s=lambda: NOON_S + self.clock.now - self.began_s,
            draw=lambda: next(draws),
        )
        self.load(self.decider.planner.matcher)

    def load(self, matcher: Matcher) -> None:
        """Put other rules in force."""
        self.decider.planner.swap(matcher)
        self.callers.rules_loaded(self.masked.rules_loaded(matcher.rules).domains)

    async def call(self, *descriptors: str, calls: int = 1) -> None:
        await self.batch({descriptors: calls})

    async def batch(self, calls: Mapping[tuple[str, ...], int]) -> None:
        plans = {
            self.decider.planner.plan(encode_request("d", list(map(read_descriptor, descriptors)))): number
            for descriptors, number in calls.items()
        }
        result = await self.decider.limiter.decide(plans)
        now = self.clock.now
        self.callers.batch_decided(BatchFact(*result, [], now, now, now))

    def rule(self, name: str) -> RuleTop:
        found = [rule for rule in self.callers.top().rules if rule.rule == name]
        return found[0] if found else RuleTop("d", name)

    def denied(self, name: str) -> dict[str, int]:
        return {caller.caller: caller.calls for caller in self.rule(name).denied}

    def busiest(self, name: str) -> dict[str, int]:
        return {caller.caller: caller.calls for caller in self.rule(name).busiest}
