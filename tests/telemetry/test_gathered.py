"""The metrics of several workers, put together."""

import json
import marshal
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from extauth.counters.breaker import BreakerState
from extauth.errors import StoreError
from extauth.limiter.facts import ShedFact
from extauth.limiter.verdict import Labels
from extauth.rules.rule_names import RuleName
from extauth.telemetry.catalogue import DESCRIBED, Across, Kind
from extauth.telemetry.gathered import Changes, GatheredMetrics, changes_of, samples_of
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch, settled
from tests.support.scrape import samples

WORKERS = 3


def gather(parent: GatheredMetrics, worker: int, metrics: Metrics) -> None:
    """Ask a worker, over what a socket carries."""
    for change in changes_of(metrics):
        parent.add(Changes(*carried(tuple(change))))
    parent.set(worker, carried(list(samples_of(metrics))))


def carried(message: Any) -> Any:  # noqa: ANN401
    return marshal.loads(marshal.dumps(message))  # noqa: S302 - our own


def counts(metrics: Metrics) -> dict[tuple[str, str], Any]:
    """All counters and histograms, by the names and labels of their series."""
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): pytest.approx(sample.value)
        for family in read_text(b"".join(metrics.render()).decode())
        if (described := DESCRIBED.get(family.name)) is not None and described.across is Across.SUM
        if described.kind is not Kind.GAUGE
        for sample in family.samples
    }


class Calls(NamedTuple):
    """A batch of calls; each process has facts and plans of its own."""

    path: str
    tier: str
    rule: str
    allowed: int
    denied: int
    late_s: float

    def counted_by(self, metrics: Metrics) -> None:
        group = settled(Labels(self.path, self.tier), self.allowed, self.denied, RuleName("d", self.rule))
        error = StoreError("timeout", "") if self.late_s > 1 else None
        metrics.batch_decided(batch(group, durations_s=[(self.late_s, self.allowed + self.denied)], error=error))
        metrics.guard_tripped("x")
        metrics.call_shed(ShedFact("y", group, counting=True))
        metrics.store_failed(StoreError("timeout", ""))


GATHER, DIE = "gather", "die"
names, numbers = st.sampled_from("abc"), st.integers(0, 9)
calls = st.builds(Calls, names, names, names, numbers, numbers, st.floats(0, 3))
steps = st.lists(st.tuples(st.integers(0, WORKERS - 1), calls | st.sampled_from([GATHER, DIE])), max_size=30)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_they_are_what_one_process_would_have_counted(steps: Sequence[tuple[int, Calls | str]]) -> None:
    alone, parent = Metrics(["x"], ["y"]), GatheredMetrics(["x"], ["y"])
    workers = [Metrics(["x"], ["y"]) for _ in range(WORKERS)]
    for number, step in steps:
        worker = workers[number]
        if isinstance(step, Calls):
            step.counted_by(alone)
            step.counted_by(worker)
        else:
            gather(parent, number, worker)
        if step == DIE:
            parent.worker_ended(number)
            workers[number] = Metrics(["x"], ["y"])
    for number, worker in enumerate(workers):
        gather(parent, number, worker)
    assert counts(parent) == counts(alone)
    assert parent.incidents() == alone.incidents()


def test_a_worker_that_ends_uncounted_leaves_what_it_had_told() -> None:
    parent, worker = GatheredMetrics(), Metrics()
    worker.batch_decided(batch(settled(Labels(), 5, 0)))
    gather(parent, 0, worker)
    worker.batch_decided(batch(settled(Labels(), 7, 0)))
    parent.worker_ended(0)
    assert samples(parent, "http_requests_total")["none", "allowed", "none"] == 5
    assert samples(parent, "extauth_batch_size_count") == {(): 1}


def two(first: Metrics, second: Metrics) -> GatheredMetrics:
    parent = GatheredMetrics()
    for number, worker in enumerate((first, second)):
        gather(parent, number, worker)
    return parent


def test_each_gauge_is_put_together_by_its_own_rule() -> None:
    workers = Metrics(), Metrics()
    workers[0].watch_connections(lambda: 3, 512)
    workers[0].watch_replicas(lambda: 2, lambda: False, lambda: 0.5)
    workers[0].breaker_changed(BreakerState.CLOSED)
    workers[1].watch_connections(lambda: 4, 512)
    workers[1].watch_replicas(lambda: 3, lambda: True, lambda: 0.5)
    workers[1].breaker_changed(BreakerState.OPEN)
    for worker in workers:
        worker.rules_loaded(7, "abc", ok=True)
    parent = two(*workers)
    parent.rules_loaded(8, "def", ok=True)
    expected = {
        "extauth_connections": {(): 7},
        "extauth_max_connections": {(): 1024},
        "extauth_replicas": {(): 3},
        "extauth_cut_off": {(): 1},
        "extauth_local_share": {(): 1},
        "extauth_store_up": {(): 0},
        "extauth_store_breaker": {("closed",): 1, ("open",): 1, ("half-open",): 0},
        "extauth_rules": {(): 8},
        "extauth_config_info": {("def",): 1},
    }
    assert {name: samples(parent, name) for name in expected} == expected
    parent.worker_ended(1)
    assert samples(parent, "extauth_connections") == {(): 3}, "what ended has none open"


def test_every_metric_is_there_in_both_formats() -> None:
    worker = Metrics(["x"], ["y"])
    worker.breaker_changed(BreakerState.CLOSED)
    worker.batch_decided(batch(settled(Labels(), 1, 0)))
    parent = two(worker, Metrics())
    parent.worker_began(0, 1)
    list(parent.read_processes())
    text = {family.name: family.type for family in read_text(b"".join(parent.render()).decode())}
    openmetrics = b"".join(parent.render(as_openmetrics=True)).decode()
    families = read_openmetrics(openmetrics)  # type: ignore[no-untyped-call]
    assert {family.name: family.type for family in families} == text
    alone = {family.name: family.type for family in read_text(b"".join(worker.render()).decode())}
    assert text == alone


def test_each_process_has_its_own_series() -> None:
    parent = two(Metrics(), Metrics())
    parent.worker_began(1, 1)
    list(parent.read_processes())
    assert set(samples(parent, "process_start_time_seconds")) == {("parent",), ("1",)}
    reading = parent.read_processes()
    next(reading)
    parent.worker_ended(1)
    list(reading)
    assert set(samples(parent, "process_start_time_seconds")) == {("parent",)}
