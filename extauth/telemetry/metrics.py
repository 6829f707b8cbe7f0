"""Prometheus metrics, fed one fact per batch."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from enum import StrEnum
from fractions import Fraction
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import Metric as Family

from extauth.errors import StoreError
from extauth.limiter.counters import Source, TakeResult
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.plan import Plan
from extauth.limiter.planner import Planner
from extauth.rules.model import OnStoreFailure
from extauth.telemetry import catalogue
from extauth.telemetry.exposition import OPENMETRICS_TYPE, TEXT_TYPE, prefers_openmetrics, render
from extauth.telemetry.history import Change, RuleKey
from extauth.telemetry.instruments import Computed, Histogram, counter, gauge
from extauth.telemetry.masked_names import NOT_REMASKED, MaskedNames, Remasked
from extauth.telemetry.request_counters import RequestCounters, TemplateSeries
from extauth.telemetry.rule_counters import RuleCounters
from extauth.telemetry.tables import CounterTable
from extauth.version import own_version

NEAR_LIMIT_RATIO = 0.8

_DENIAL_CACHE = Source.DENIAL_CACHE  # on Python 3.11 it takes as long to look a member up as to call a function
_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BUCKETS_CALLS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one process, in a registry of their own, as `catalogue` describes them.

    Requests can add a bounded number of series only: the first hundred values of label descriptors, and the first
    thousand rule names that contain values of requests, have series of their own, and the rest share `other`. Names
    from the config files always have their own. A counter is near its limit above `near_limit_ratio` of it.
    `everything_shadowed`: all rules are in shadow mode. `masked` knows which names must not be shown any more.
    """

    def __init__(
        self,
        guards: Sequence[str] = (),
        shed_reasons: Sequence[str] = (),
        *,
        near_limit_ratio: float = NEAR_LIMIT_RATIO,
        everything_shadowed: bool = False,
        masked: MaskedNames | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a series to each counter
        registry = self.registry = CollectorRegistry()
        masked = MaskedNames() if masked is None else masked
        ProcessCollector(registry=registry)
        # As the ratio was written: 0.29 of 100 is 29.
        self._requests = RequestCounters(masked, Fraction(str(near_limit_ratio)))
        self._rules_asked = RuleCounters(self._requests, masked, everything_shadowed=everything_shadowed)
        self._duration = Histogram(catalogue.DECISION_DURATION, _BUCKETS_S, registry)
        self._store_duration = Histogram(catalogue.STORE_DURATION, _BUCKETS_S, registry)
        self._batch_size = Histogram(catalogue.BATCH_SIZE, _BUCKETS_CALLS, registry)
        self._store_errors = counter(catalogue.STORE_ERRORS, registry, StoreError.KINDS)
        self._failure_decisions = counter(catalogue.STORE_FAILURE_DECISIONS, registry, OnStoreFailure)
        self._decisions = CounterTable(catalogue.DECISIONS)
        self.families: Callable[[], Iterable[Family]] = registry.collect
        self.others_tables: list[CounterTable] = []  # by domain; others count in them and render them
        self._by_source = by_source = {source: self._decisions.cell(source) for source in Source}
        self._uncounted = by_source[Source.NO_COUNTER]
        Computed(catalogue.DENIAL_CACHE_HITS, lambda: by_source[Source.DENIAL_CACHE].value, registry)
        Computed(catalogue.DENIAL_CACHE_MISSES, lambda: by_source[Source.STORE].value, registry)
        self._guards = counter(catalogue.GUARD_TRIPS, registry, guards)
        self._shed = counter(catalogue.SHED_CALLS, registry, shed_reasons)
        self._reloads = counter(catalogue.CONFIG_RELOADS, registry, ("ok", "error"))
        self._reload_successful = gauge(catalogue.CONFIG_RELOAD_SUCCESSFUL, registry)
        self._reload_time = gauge(catalogue.CONFIG_RELOAD_TIME, registry)
        self._config = gauge(catalogue.CONFIG_INFO, registry)
        self._rules = gauge(catalogue.RULES, registry)
        self._store_up = gauge(catalogue.STORE_UP, registry)
        self._breaker = gauge(catalogue.STORE_BREAKER, registry)
        gauge(catalogue.BUILD_INFO, registry).labels(own_version()).set(1)

    def batch_decided(self, fact: BatchFact) -> None:
        """Count a batch."""
        stored = self._count(fact.groups, all_counted=fact.all_counted)
        size = 0
        for arrived, calls in fact.arrivals:
            size += calls
            self._duration.observe(fact.answered_at - arrived, calls)
        self._batch_size.observe(size)
        if stored or fact.store_error is not None:
            self._store_duration.observe(fact.decided_at - fact.asked_at)

    def call_shed(self, fact: ShedFact) -> None:
        """Count a call that was not decided in time; its batch counts the decision if the call is `counting`."""
        self._shed.labels(fact.reason).inc()
        if not fact.counting:
            self._count([fact.group])

    def _count(self, groups: Sequence[GroupResult], *, all_counted: bool = False) -> bool:
        """Count the calls; returns whether the store counted any of them."""
        if not all_counted:
            groups = self._count_others(groups)
        recall, rules = self._requests.by_template.get, self._rules_asked
        first = template = tally = None
        alike = denied = stored = repeated = 0
        for plan, calls, taken, _, _ in groups:
            if plan.template is not template or plan.tally is not tally:
                if first is not None:
                    stored += alike
                    rules.add(first, alike, denied)
                # Of several plans in a row that have the same series, all are counted in the first.
                first, template, tally = plan, plan.template, plan.tally
                alike = denied = 0
                series = recall(template) or self._requests.series(template)
                start, step, looks = series.start, series.step, series.looks
            alike += calls
            # Of calls that stay below, none is near a limit, and still less is any denied.
            if taken[1][0][0] + calls * step >= start:  # type: ignore[index]  # by index, as is quickest
                admitted, _, source = taken  # type: ignore[misc]
                denied += calls - admitted
                if admitted or looks:
                    series.near.value += rules.count_limits(plan, calls, taken, series.watches)  # type: ignore[arg-type]
                if source is _DENIAL_CACHE:
                    repeated += calls
        if first is not None:
            stored += alike
            rules.add(first, alike, denied)
        stored -= repeated
        self._by_source[Source.STORE].value += stored
        self._by_source[Source.DENIAL_CACHE].value += repeated
        rules.bound()
        return stored > 0

    def _count_others(self, groups: Sequence[GroupResult]) -> Sequence[GroupResult]:
        """Count the calls that the store did not decide; returns the groups that it did."""
        counted = []
        for group in groups:
            plan, calls, taken, given, without_store = group
            if taken is not None and taken.levels and without_store is None:
                counted.append(group)
                continue
            series = self._requests.series(plan.template)
            if taken is None or without_store is not None:
                self._count_without_store(series, plan, calls, taken, given)
            else:
                self._count_uncounted(series, calls)
        return counted

    def _count_uncounted(self, series: TemplateSeries, calls: int) -> None:
        """Count calls that take from no counter."""
        self._uncounted.value += calls
        series.allowed.value += calls
        if series.unmatched is not None:
            series.unmatched.value += calls

    def _count_without_store(
        self, series: TemplateSeries, plan: Plan, calls: int, taken: TakeResult | None, given: OnStoreFailure | None
    ) -> None:
        """Count calls that were counted by this replica alone, or not counted, and got what the policy gave."""
        self._failure_decisions.labels(given or OnStoreFailure.LOCAL).inc(calls)
        self._by_source[Source.FAILURE_POLICY if taken is None else taken.source].value += calls
        if taken is not None:
            admitted = taken.admitted
        elif given is OnStoreFailure.ERROR:
            return
        else:
            admitted = calls if given is OnStoreFailure.ALLOW else 0
        series.allowed.value += admitted
        series.denied.value += calls - admitted
        self._rules_asked.count(plan, calls, 0 if taken is None else calls - admitted)
        if taken is not None:
            series.near.value += self._rules_asked.count_limits(plan, calls, taken, series.watches)

    def guard_tripped(self, guard: str) -> None:
        """Count a refusal."""
        self._guards.labels(guard).inc()

    def watch_connections(self, number: Callable[[], int], most: int) -> None:
        """Export the number of open connections, and of those that may be open."""
        gauge(catalogue.CONNECTIONS, self.registry).set_function(number)
        gauge(catalogue.MAX_CONNECTIONS, self.registry).set(most)

    def watch_plan_memo(self, planner: Planner) -> None:
        """Export how often a message's plan was found in memory, and how often it was not there."""
        Computed(catalogue.PLAN_MEMO_HITS, lambda: planner.hits, self.registry)
        Computed(catalogue.PLAN_MEMO_MISSES, lambda: planner.misses, self.registry)

    def watch_replicas(self, seen: Callable[[], int], cut_off: Callable[[], bool], share: Callable[[], float]) -> None:
        """Export what a replica knows of the others, and its part of each limit where it counts by itself."""
        gauge(catalogue.REPLICAS, self.registry).set_function(seen)
        gauge(catalogue.CUT_OFF, self.registry).set_function(cut_off)
        gauge(catalogue.LOCAL_SHARE, self.registry).set_function(share)

    def store_failed(self, error: StoreError) -> None:
        """Count what the store failed."""
        self._store_errors.labels(error.kind).inc()

    def breaker_changed(self, state: StrEnum) -> None:
        """Record the state of the store's circuit breaker."""
        for each in type(state):
            self._breaker.labels(each).set(each is state)
        self._store_up.set(state == "closed")

    def before_rules(self) -> Iterator[bytes]:
        """Do in steps, each of which yields nothing, most of what `rules_loaded` would have to do at once."""
        return self._rules_asked.steps()

    def rules_loaded(
        self, rules: int, digest: str, *, ok: bool, remasked: Remasked = NOT_REMASKED
    ) -> list[dict[Any, Any]]:
        """Record the number of rules in force and their hash; `ok` if every file's rules are among them.

        What has names that must not be shown any more is forgotten. Returns tables that are no longer used, to be
        emptied bit by bit.
        """
        self._rules.set(rules)
        self._config.clear()
        self._config.labels(digest).set(1)
        self._reload_successful.set(ok)
        if ok:
            self._reload_time.set(time())
        unused = self._rules_asked.rules_loaded(remasked.domains)  # it adds calls of the rules before
        unused += self._requests.rules_loaded(remasked=remasked.paths)
        for table in self.others_tables:
            unused += [*table.forget(remasked.domains), *table.age()]
        return unused

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload."""
        self._reloads.labels("ok" if ok else "error").inc()
        self._reload_successful.set(ok)

    def scrape(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """The content type and the text for a scraper with this Accept header."""
        as_openmetrics = prefers_openmetrics(accept)
        return OPENMETRICS_TYPE if as_openmetrics else TEXT_TYPE, self.render(as_openmetrics=as_openmetrics)

    def render(self, *, as_openmetrics: bool = False) -> Iterator[bytes]:
        """The text that Prometheus scrapes, in pieces that take well below a millisecond each; some are empty."""
        yield from self._rules_asked.steps()
        yield from render(self.registry, self.tables, as_openmetrics=as_openmetrics)

    def changes(self, rules: Container[RuleKey] | None = None) -> Iterator[list[Change]]:
        """What was counted by tier and by rule since this was called before, in pieces that are quick to make.

        With `rules`, that of all other rules is one change, of OTHER_RULES.
        """
        for _ in self._rules_asked.steps():
            yield []
        for piece, _ in self._requests.requests.changes():
            yield [
                Change(tier, calls, 0) if status == "allowed" else Change(tier, 0, calls)
                for (_, status, tier), calls in piece
            ]
        yield from self._rules_asked.changes(rules)

    @property
    def tables(self) -> tuple[CounterTable, ...]:
        """The counters that are not in the registry."""
        return *self._requests.tables, self._decisions, *self._rules_asked.tables

    @property
    def rules(self) -> RuleCounters:
        """What was counted of each rule."""
        return self._rules_asked

    def incidents(self) -> dict[str, dict[str, int]]:
        """Guard trips, shed calls and calls decided without the store, each by its label's value."""
        counters = {"guards": self._guards, "shed": self._shed, "without_store": self._failure_decisions}
        return {
            name: {
                next(iter(sample.labels.values())): int(sample.value)
                for family in counter.collect()
                for sample in family.samples
                if sample.name.endswith("_total")
            }
            for name, counter in counters.items()
        }
