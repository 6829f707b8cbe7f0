"""What is measured of batches, and of the memory of plans."""

import itertools
import weakref

import pytest

from extauth.explain.request import read_descriptor
from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.counters import LimitCheck, Source, TakeResult
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rls.encode import encode_request
from extauth.rules.model import Limit, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch
from tests.support.scrape import samples
from tests.support.service import planner_of


def answered(calls: int) -> GroupResult:
    return GroupResult(
        Plan((), PlanTemplate((), ((),), None, Labels())), calls, TakeResult(calls, (), Source.NO_COUNTER)
    )


def test_batches_are_counted_by_their_number_of_calls() -> None:
    metrics = Metrics()
    for calls in (1, 7, 1000):
        metrics.batch_decided(batch(answered(calls), durations_s=[(0.1, calls - 1), (0.2, 1)]))
    assert samples(metrics, "extauth_batch_size_count") == {(): 3}
    assert samples(metrics, "extauth_batch_size_sum") == {(): 1008}
    buckets = samples(metrics, "extauth_batch_size_bucket")
    assert [buckets[at,] for at in ("1.0", "5.0", "10.0", "500.0", "1000.0")] == [1, 1, 2, 2, 3]


def test_messages_whose_plan_is_known_are_counted() -> None:
    metrics = Metrics()
    planner = planner_of("domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 9}}]")
    metrics.watch_plan_memo(planner)
    for value in "xyxxy":
        planner.plan(encode_request("d", [read_descriptor(f"a={value}")]))
    assert samples(metrics, "extauth_plan_memo_hits_total") == {(): 3}
    assert samples(metrics, "extauth_plan_memo_misses_total") == {(): 2}


@pytest.mark.parametrize(("length", "kept"), [(10, True), (600, False)])
def test_plans_of_large_messages_are_not_kept_for_their_calls(length: int, kept: bool) -> None:
    metrics = Metrics()
    planner = planner_of("domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 9}}]")
    plan = planner.plan(encode_request("d", [read_descriptor("a=" + "x" * length)]))
    known = weakref.ref(plan)
    metrics.batch_decided(batch(GroupResult(plan, 2, TakeResult(2, (WindowUsage(0, 0),)))))
    metrics.batch_decided(batch(GroupResult(plan, 3, TakeResult(3, (WindowUsage(2, 0),)))))
    planner.swap(planner.matcher)
    del plan
    assert (known() is not None) is kept
    assert samples(metrics, "extauth_rule_calls_total") == {("d", "a"): 5}
    assert known() is None, "what was read is not kept"


def test_several_read_at_the_same_time_and_each_call_is_counted_once() -> None:
    metrics = Metrics()
    limited = LimitCheck(Limit(9, Unit.DAY), 1)
    template = PlanTemplate((limited,), ((0,),), None, Labels("/", "t"))
    groups = [
        GroupResult(
            Plan((b"%d" % i,), template, Tally((RuleName("d", f"{i % 7}"),))), 3, TakeResult(2, (WindowUsage(7, 0),))
        )
        for i in range(5000)
    ]
    metrics.batch_decided(batch(*groups))
    readers = [metrics.render(), metrics.render(as_openmetrics=True), metrics.changes()]
    for _ in itertools.zip_longest(*readers):
        pass
    assert sum(samples(metrics, "extauth_rule_calls_total").values()) == 15_000
    assert samples(metrics, "http_requests_total") == {("/", "allowed", "t"): 10_000, ("/", "denied", "t"): 5000}
    assert samples(metrics, "extauth_tier_near_limit_total") == {("t",): 10_000}
