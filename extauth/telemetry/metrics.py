"""Prometheus metrics, fed one fact per batch."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from extauth.errors import StoreError
from extauth.limiter.algorithms import room
from extauth.limiter.counters import Mode, Taken
from extauth.limiter.limiter import Decided, OnStoreFailure, Settled
from extauth.limiter.plan import Plan, Shape

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0
MAX_PATHS = 100
MAX_TIERS = 100
MAX_RULES = 1000
MAX_SHAPES = 20_000
OTHER = "other"

_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The metrics of one process, in a registry of their own.

    Label values are bounded: of paths and of tiers the first hundred seen get a name, of rules the first thousand; the
    rest are `other`.
    """

    def __init__(
        self, on_store_failure: OnStoreFailure, guards: Sequence[str] = (), shed_reasons: Sequence[str] = ()
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, which nothing here asks for
        self.registry = CollectorRegistry()
        self._on_store_failure = on_store_failure
        self._paths: set[str] = set()
        self._tiers: set[str] = set()
        self._rule_names: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests", "Requests decided.", ("status", "path", "tier"), registry=self.registry
        )
        self._rule_calls = Counter(
            "extauth_rule_calls", "Calls that a rule's limits were asked about.", ("rule",), registry=self.registry
        )
        self._rule_over = Counter(
            "extauth_rule_over_limit",
            "Calls that a rule's limits had no room for, denied or not.",
            ("rule",),
            registry=self.registry,
        )
        self._by_shape: dict[Shape, _Series] = {}
        self._duration = _Histogram(
            "extauth_decision_duration_seconds",
            "Time from a call's arrival to its answer.",
            _BUCKETS_S,
            self.registry,
        )
        self._store_errors = Counter(
            "extauth_store_errors", "Batches that the store failed, by kind.", ("kind",), registry=self.registry
        )
        self._failure_decisions = Counter(
            "extauth_store_failure_decisions",
            "Calls answered without the store, by what they got.",
            ("outcome",),
            registry=self.registry,
        )
        self._denied_from_memory = Counter(
            "extauth_denial_cache_hits", "Calls denied without asking the store.", registry=self.registry
        )
        self._guards = Counter(
            "extauth_guard_trips",
            "What clients of the gRPC listener were refused for, by guard.",
            ("guard",),
            registry=self.registry,
        )
        self._shed = Counter(
            "extauth_shed_calls",
            "Calls that got the failure policy because they were not decided in time, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._reloads = Counter(
            "extauth_config_reloads", "Config reloads, by outcome.", ("outcome",), registry=self.registry
        )
        self._rules = Gauge("extauth_rules", "Rules in force.", registry=self.registry)
        self._store_up = Gauge(
            "extauth_store_up",
            "0 from a batch that the store failed, 1 from a probe that worked.",
            registry=self.registry,
        )
        build = Gauge("extauth_build_info", "The version that runs.", ("version",), registry=self.registry)
        build.labels(version("extauth")).set(1)
        for kind in StoreError.KINDS:
            self._store_errors.labels(kind)
        for answer in OnStoreFailure:
            self._failure_decisions.labels(answer)
        for guard in guards:
            self._guards.labels(guard)
        for reason in shed_reasons:
            self._shed.labels(reason)
        for outcome in ("ok", "error"):
            self._reloads.labels(outcome)

    def batch_decided(self, decided: Decided, durations_s: Sequence[tuple[float, int]]) -> None:
        """Count a batch."""
        tallies: dict[Shape, list[int]] = {}
        for plan, calls, taken in decided.settled:
            shape = plan.shape
            if taken is not None:
                allowed = taken.admitted
            elif self._on_store_failure is OnStoreFailure.ALLOW or not shape.blocks:
                allowed = calls
            elif self._on_store_failure is OnStoreFailure.DENY:
                allowed = 0
            else:
                continue
            tally = tallies.get(shape)
            if tally is None:
                tally = tallies[shape] = [0, 0]
            tally[0] += allowed
            tally[1] += calls - allowed
            if taken is not None and (allowed < calls or self._series(shape).soft):
                self._count_over(shape, calls, taken)
        for shape, (allowed, denied) in tallies.items():
            series = self._series(shape)
            series.allowed.inc(allowed)
            series.denied.inc(denied)
            for asked, _ in series.rules:
                asked.inc(allowed + denied)
        for duration_s, calls in durations_s:
            self._duration.observe(duration_s, calls)
        if decided.store_error is not None:
            failed = sum(settled.calls for settled in decided.settled if settled.taken is None)
            self._store_errors.labels(decided.store_error.kind).inc()
            self._failure_decisions.labels(self._on_store_failure).inc(failed)

    def denied_from_memory(self, calls: int) -> None:
        """Count calls that the denial cache answered."""
        self._denied_from_memory.inc(calls)

    def call_shed(self, reason: str, plan: Plan, counting: bool) -> None:
        """Count a call that was not decided in time; one that is `counting` is counted with its batch besides."""
        self._shed.labels(reason).inc()
        if not counting:
            self.batch_decided(Decided([Settled(plan, 1, None)]), ())

    def guard_tripped(self, guard: str) -> None:
        """Count a refusal."""
        self._guards.labels(guard).inc()

    def store_changed(self, *, up: bool) -> None:
        """Note whether the store counts."""
        self._store_up.set(up)

    def rules_loaded(self, rules: int) -> None:
        """Note how many rules are in force."""
        self._rules.set(rules)

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload."""
        self._reloads.labels("ok" if ok else "error").inc()

    def render(self) -> bytes:
        """The text that Prometheus scrapes, of type CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _count_over(self, shape: Shape, calls: int, taken: Taken) -> None:
        """Count, for each rule, the calls that its limits had no room for."""
        series = self._series(shape)
        if series.plain and taken.admitted < calls:
            series.rules[0][1].inc(calls - taken.admitted)
            return
        most: dict[int, int] = {}
        for i, (ask, level) in enumerate(zip(shape.asks, taken.levels, strict=True)):
            fitting = room(ask, level)
            if fitting < calls and (fitting <= taken.admitted or ask.limit.count_denied):
                rule = series.rule_of[i]
                most[rule] = max(most.get(rule, 0), calls - fitting)
        for rule, number in most.items():
            series.rules[rule][1].inc(number)

    def _series(self, shape: Shape) -> "_Series":
        series = self._by_shape.get(shape)
        if series is None:
            path = _first(self._paths, shape.labels.path, MAX_PATHS)
            tier = _first(self._tiers, shape.labels.tier, MAX_TIERS)
            allowed, denied = (self._requests.labels(status, path, tier) for status in ("allowed", "denied"))
            names = list(dict.fromkeys(shape.rules))
            called = [_first(self._rule_names, name, MAX_RULES) for name in names]
            rules = [(self._rule_calls.labels(name), self._rule_over.labels(name)) for name in called]
            soft = any(ask.mode is not Mode.ENFORCED for ask in shape.asks)
            plain = len(shape.asks) == 1 and not soft
            series = _Series(allowed, denied, rules, [names.index(name) for name in shape.rules], soft, plain)
            if len(self._by_shape) >= MAX_SHAPES:  # those of rules that are no more in force
                self._by_shape.clear()
            self._by_shape[shape] = series
        return series


class _Series(NamedTuple):
    """What the calls of a shape count in: by outcome, and (asked, over limit) by rule; the rule of each ask."""

    allowed: Counter
    denied: Counter
    rules: list[tuple[Counter, Counter]]
    rule_of: list[int]
    soft: bool  # an admitted call may be over a limit
    plain: bool  # one limit, enforced: it is over it that denied calls are


class _Histogram(Collector):
    """A histogram that takes many equal observations at once, as prometheus-client's own does not."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._buckets = (*buckets, float("inf"))
        self._counts = [0] * len(self._buckets)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._buckets, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[Metric]:
        buckets = zip(map(floatToGoString, self._buckets), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self._name, self._documentation, list(buckets), self._sum)


def _first(seen: set[str], value: str, most: int) -> str:
    if value not in seen:
        if len(seen) >= most:
            return OTHER
        seen.add(value)
    return value
