"""Prometheus metrics, fed one fact per batch."""

from collections.abc import Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0

from extauth.errors import StoreError
from extauth.limiter.limiter import Decided, OnStoreFailure
from extauth.limiter.verdict import Labels

CONTENT_TYPE = CONTENT_TYPE_PLAIN_1_0_0
MAX_PATHS = 100
MAX_TIERS = 100
OTHER = "other"

_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The metrics of one process, in a registry of their own.

    Label values are bounded: of paths and of tiers the first hundred seen get a name, the rest are `other`.
    """

    def __init__(self, on_store_failure: OnStoreFailure) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series a counter, which nothing here asks for
        self.registry = CollectorRegistry()
        self._on_store_failure = on_store_failure
        self._paths: set[str] = set()
        self._tiers: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests", "Requests decided.", ("status", "path", "tier"), registry=self.registry
        )
        self._duration = Histogram(
            "extauth_decision_duration_seconds",
            "Time from a call's arrival to its verdict.",
            buckets=_BUCKETS_S,
            registry=self.registry,
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
        self._reloads = Counter(
            "extauth_config_reloads", "Config reloads, by outcome.", ("outcome",), registry=self.registry
        )
        self._rules = Gauge("extauth_rules", "Rules in force.", registry=self.registry)
        self._store_up = Gauge("extauth_store_up", "1 if the store answered when last asked.", registry=self.registry)
        build = Gauge("extauth_build_info", "The version that runs.", ("version",), registry=self.registry)
        build.labels(version("extauth")).set(1)
        for kind in ("timeout", "connection", "reply"):
            self._store_errors.labels(kind)
        for answer in OnStoreFailure:
            self._failure_decisions.labels(answer)
        for outcome in ("ok", "error"):
            self._reloads.labels(outcome)

    def batch_decided(self, decided: Decided, durations_s: Sequence[float]) -> None:
        """Count a batch."""
        for labels, allowed, denied in decided.tallies:
            if allowed:
                self._requests.labels("allowed", *self._bounded(labels)).inc(allowed)
            if denied:
                self._requests.labels("denied", *self._bounded(labels)).inc(denied)
        for duration_s in durations_s:
            self._duration.observe(duration_s)
        if decided.store_error is not None:
            self._store_errors.labels(decided.store_error.kind).inc()
            self._failure_decisions.labels(self._on_store_failure).inc(decided.failed)

    def store_asked(self, error: StoreError | None) -> None:
        """Note whether the store answered a ping."""
        self._store_up.set(error is None)

    def rules_loaded(self, rules: int) -> None:
        """Note how many rules are in force."""
        self._rules.set(rules)

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload."""
        self._reloads.labels("ok" if ok else "error").inc()

    def render(self) -> bytes:
        """The text that Prometheus scrapes, of type CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _bounded(self, labels: Labels) -> tuple[str, str]:
        return _first(self._paths, labels.path, MAX_PATHS), _first(self._tiers, labels.tier, MAX_TIERS)


def _first(seen: set[str], value: str, most: int) -> str:
    if value not in seen:
        if len(seen) >= most:
            return OTHER
        seen.add(value)
    return value
