"""Prometheus metrics, fed one fact per batch."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from importlib.metadata import version
from time import time
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from extauth.errors import StoreError
from extauth.limiter.counters import Source
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.memo import Memo
from extauth.limiter.plan import PlanTemplate
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.histogram import Histogram
from extauth.telemetry.rule_counters import RuleCounters
from extauth.telemetry.tables import OTHER, Cell, CounterTable, named_first

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0
MAX_PATHS = 100
MAX_TEMPLATES_BYTES = 8 << 20

_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The metrics of one process, in a registry of their own.

    Requests can add a bounded number of series only: the first hundred values of label descriptors, and the first
    thousand rule names that contain values of requests, have series of their own, and the rest share `other`. Names
    from the config files always have their own.
    """

    def __init__(self, guards: Sequence[str] = (), shed_reasons: Sequence[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a series to each counter
        self.registry = CollectorRegistry()
        self._paths: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._requests = CounterTable("http_requests", "Requests decided.", ("path", "status", "tier"))
        self._unmatched = CounterTable(
            "extauth_unmatched_calls", "Calls to which no rule of their domain applied.", ("domain",)
        )
        self._rules_asked = RuleCounters()
        self._by_template: Memo[PlanTemplate, _Series] = Memo(MAX_TEMPLATES_BYTES)
        self._duration = Histogram(
            "extauth_decision_duration_seconds",
            "Time from a call's arrival to its answer.",
            _BUCKETS_S,
            self.registry,
        )
        self._store_duration = Histogram(
            "extauth_store_duration_seconds",
            "Time from asking the store for a batch to its result or its failure.",
            _BUCKETS_S,
            self.registry,
        )
        self._store_errors = Counter(
            "extauth_store_errors",
            "Batches and probes that the store failed, by kind.",
            ("kind",),
            registry=self.registry,
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
        self._reload_successful = Gauge(
            "extauth_config_last_reload_successful",
            "1 if what the files said when they were last read is in force, else 0.",
            registry=self.registry,
        )
        self._reload_time = Gauge(
            "extauth_config_last_reload_success_timestamp_seconds",
            "When all that the files say was last put in force.",
            registry=self.registry,
        )
        self._config = Gauge(
            "extauth_config_info",
            "1, for the hash of the rules in force: replicas that have the same rules have the same.",
            ("hash",),
            registry=self.registry,
        )
        self._rules = Gauge("extauth_rules", "Rules in force.", registry=self.registry)
        self._store_up = Gauge(
            "extauth_store_up",
            "1 while the store is asked, else 0.",
            registry=self.registry,
        )
        self._breaker = Gauge(
            "extauth_store_breaker", "1 for the state that it is in, else 0.", ("state",), registry=self.registry
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

    def batch_decided(self, fact: BatchFact) -> None:
        """Count a batch."""
        stored = self._count(fact.groups)
        for arrived, calls in fact.arrivals:
            self._duration.observe(fact.answered_at - arrived, calls)
        if stored or fact.store_error is not None:
            self._store_duration.observe(fact.decided_at - fact.asked_at)

    def call_shed(self, fact: ShedFact) -> None:
        """Count a call that was not decided in time; its batch counts the decision if the call is `counting`."""
        self._shed.labels(fact.reason).inc()
        if not fact.counting:
            self._count([fact.group])

    def _count(self, groups: Sequence[GroupResult]) -> bool:
        """Count the calls; returns whether the store counted any of them."""
        outcomes: dict[PlanTemplate, list[int]] = {}
        repeated, stored = 0, False
        count_rules = self._rules_asked.count
        for plan, calls, taken, given, without_store in groups:
            template = plan.template
            if without_store is not None:
                self._failure_decisions.labels(OnStoreFailure.LOCAL if taken is not None else given).inc(calls)
            if taken is not None:
                allowed = taken.admitted
                if taken.source is Source.STORE:
                    stored = True
                elif taken.source is Source.DENIAL_CACHE:
                    repeated += calls
            elif given is OnStoreFailure.ERROR:
                continue
            else:
                allowed = calls if given is OnStoreFailure.ALLOW else 0
            outcome = outcomes.get(template)
            if outcome is None:
                outcome = outcomes[template] = [0, 0]
            outcome[0] += allowed
            outcome[1] += calls - allowed
            count_rules(plan, calls, taken)
        for template, (allowed, denied) in outcomes.items():
            series = self._series(template)
            series.allowed.value += allowed
            series.denied.value += denied
            if series.unmatched is not None:
                series.unmatched.value += allowed + denied
        if repeated:
            self._denied_from_memory.inc(repeated)
        return stored

    def guard_tripped(self, guard: str) -> None:
        """Count a refusal."""
        self._guards.labels(guard).inc()

    def watch_connections(self, number: Callable[[], int], most: int) -> None:
        """Export the number of open connections, and of those that may be open."""
        connections = Gauge("extauth_connections", "Open connections of the gRPC port.", registry=self.registry)
        connections.set_function(number)
        bound = Gauge("extauth_max_connections", "How many may be open.", registry=self.registry)
        bound.set(most)

    def store_failed(self, error: StoreError) -> None:
        """Count what the store failed."""
        self._store_errors.labels(error.kind).inc()

    def breaker_changed(self, state: StrEnum) -> None:
        """Record the state of the store's circuit breaker."""
        for each in type(state):
            self._breaker.labels(each).set(each is state)
        self._store_up.set(state == "closed")

    def rules_loaded(self, rules: int, digest: str, *, ok: bool) -> None:
        """Record the number of rules in force and their hash; `ok` if every file's rules are among them."""
        self._rules.set(rules)
        self._config.clear()
        self._config.labels(digest).set(1)
        self._reload_successful.set(ok)
        if ok:
            self._reload_time.set(time())
        self._paths.clear()
        self._by_template.clear()
        self._rules_asked.rules_loaded()
        for table in self._tables:
            table.age()

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload."""
        self._reloads.labels("ok" if ok else "error").inc()
        self._reload_successful.set(ok)

    def render(self) -> Iterator[bytes]:
        """The text that Prometheus scrapes, of type CONTENT_TYPE, in pieces that take a few milliseconds each."""
        self._rules_asked.add_tallies()
        yield generate_latest(self.registry)
        for table in self._tables:
            yield from map(str.encode, table.pieces())

    @property
    def _tables(self) -> tuple[CounterTable, ...]:
        return self._requests, self._unmatched, self._rules_asked.calls, self._rules_asked.over

    def _series(self, template: PlanTemplate) -> "_Series":
        series = self._by_template.get(template)
        if series is None:
            path = named_first(self._paths, template.labels.path, MAX_PATHS)
            tier = template.labels.tier
            allowed, denied = (self._requests.cell(path, status, tier) for status in ("allowed", "denied"))
            unmatched = None if template.matched else self._unmatched.cell(template.domain or OTHER)
            series = _Series(allowed, denied, unmatched)
            # The size includes the template, since nothing else may refer to it any more.
            self._by_template.remember(template, series, template.bytes + 250)
        return series


class _Series(NamedTuple):
    """The series of a PlanTemplate: allowed and denied calls, and those to which no rule applied."""

    allowed: Cell
    denied: Cell
    unmatched: Cell | None
