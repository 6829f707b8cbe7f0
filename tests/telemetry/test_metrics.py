"""Metrics."""

from time import time

import pytest

from extauth.counters.breaker import BreakerState
from extauth.errors import StoreError
from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import LimitCheck, Mode, Source, TakeResult, Uncounted
from extauth.limiter.facts import GroupResult, ShedFact
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rls.response import Code
from extauth.rules.model import Limit, OnStoreFailure, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch, settled
from tests.support.scrape import samples
from tests.support.service import decider_of

A = RuleName("d", "a")


def test_requests_are_counted_by_status_path_and_tier() -> None:
    metrics = Metrics()
    metrics.batch_decided(
        batch(settled(Labels("/", "free"), 3, 2), settled(Labels(), 1, 0), durations_s=[(0.002, 5), (0.2, 1)])
    )
    metrics.batch_decided(batch(settled(Labels("/", "free"), 1, 0)))
    assert samples(metrics, "http_requests_total") == {
        ("/", "allowed", "free"): 4,
        ("/", "denied", "free"): 2,
        ("none", "allowed", "none"): 1,
        ("none", "denied", "none"): 0,
    }
    assert samples(metrics, "extauth_decision_duration_seconds_count") == {(): 6}
    buckets = samples(metrics, "extauth_decision_duration_seconds_bucket")
    assert (buckets["0.001",], buckets["0.0025",], buckets["0.25",], buckets["+Inf",]) == (0, 5, 6, 6)
    assert samples(metrics, "extauth_decision_duration_seconds_sum")[()] == pytest.approx(0.21)


NO_COUNTER = GroupResult(settled(Labels()).plan, 1, TakeResult(1, (), Source.NO_COUNTER))
REPEATED = GroupResult(settled(Labels()).plan, 9, TakeResult(0, (WindowUsage(9, 0),), Source.DENIAL_CACHE))
FAILED = GroupResult(settled(Labels()).plan, 1, None, OnStoreFailure.ALLOW)


@pytest.mark.parametrize(
    ("groups", "error", "observed"),
    [
        ([settled(Labels())], None, 1),
        ([NO_COUNTER, REPEATED, settled(Labels(), 5), settled(Labels())], None, 1),
        ([NO_COUNTER, FAILED], StoreError("timeout", ""), 1),
        ([NO_COUNTER, REPEATED], None, 0),
    ],
)
def test_the_stores_time_is_observed_once_for_each_batch_that_asked_it(
    groups: list[GroupResult], error: StoreError | None, observed: int
) -> None:
    metrics = Metrics()
    metrics.batch_decided(batch(*groups, error=error, decided_in_s=0.002))
    assert samples(metrics, "extauth_store_duration_seconds_count") == {(): observed}
    buckets = samples(metrics, "extauth_store_duration_seconds_bucket")
    assert (buckets["0.001",], buckets["0.0025",]) == (0, observed)
    assert samples(metrics, "extauth_store_duration_seconds_sum")[()] == pytest.approx(0.002 * observed)


def test_calls_are_counted_by_rule() -> None:
    metrics = Metrics()
    enforced, shadowed = LimitCheck(Limit(2, Unit.DAY), 1), LimitCheck(Limit(1, Unit.DAY), 1, Mode.SHADOW)
    template = PlanTemplate((shadowed, enforced, enforced), ((0, 1), (2,)), None, Labels())
    plan = Plan((b"1", b"2", b"3"), template, Tally((A, A, RuleName("d", "b"))))
    metrics.batch_decided(batch(GroupResult(plan, 5, TakeResult(2, (WindowUsage(0, 0),) * 3))))
    metrics.batch_decided(batch(settled(Labels(), 1, 3)))
    assert samples(metrics, "extauth_rule_calls_total") == {("d", "a"): 5, ("d", "b"): 5, ("d", "k"): 4}
    assert samples(metrics, "extauth_rule_over_limit_total") == {("d", "a"): 4, ("d", "b"): 3, ("d", "k"): 3}


def day(requests: int, mode: Mode, *, count_denied: bool = False) -> LimitCheck:
    return LimitCheck(Limit(requests, Unit.DAY, count_denied=count_denied), 1, mode)


OVER = [
    ([day(1, Mode.SHADOW)], [4]),
    ([day(1, Mode.REPORT_ONLY)], [4]),
    ([day(1, Mode.SHADOW, count_denied=True)], [4]),
    ([day(9, Mode.SHADOW)], [0]),
    ([day(2, Mode.SHADOW), day(9, Mode.SHADOW)], [3, 0]),
    ([day(1, Mode.QUOTA), day(3, Mode.QUOTA)], [4, 2]),
    ([day(1, Mode.QUOTA), day(9, Mode.QUOTA)], [4, 0]),
    ([day(2, Mode.ENFORCED)], [3]),
    ([day(2, Mode.ENFORCED), day(1, Mode.SHADOW)], [3, 4]),
    # A call that is denied before takes nothing of a shadowed limit, which so has room for it.
    ([day(2, Mode.ENFORCED), day(3, Mode.SHADOW)], [3, 0]),
    ([day(2, Mode.ENFORCED), day(3, Mode.SHADOW, count_denied=True)], [3, 2]),
]


@pytest.mark.parametrize(("checks", "over"), OVER)
async def test_calls_over_a_limit_are_counted_denied_or_not(checks: list[LimitCheck], over: list[int]) -> None:
    rules = tuple(RuleName("d", f"{i}") for i in range(len(checks)))
    template = PlanTemplate(tuple(checks), tuple((i,) for i in range(len(checks))), None, Labels())
    plan = Plan(tuple(b"%d" % i for i in range(len(checks))), template, Tally(rules))
    metrics = Metrics()
    result = await decider_of().limiter.decide({plan: 5})
    metrics.batch_decided(batch(*result.groups))
    counted = samples(metrics, "extauth_rule_over_limit_total")
    assert [counted["d", rule.name] for rule in rules] == over


def test_what_requests_bring_is_capped_and_what_the_files_name_is_not() -> None:
    metrics = Metrics()
    for i in range(150):
        metrics.batch_decided(batch(settled(Labels(f"/{i}", "t")), settled(Labels("/0", f"t{i}"))))
    counted = samples(metrics, "http_requests_total")
    assert counted["other", "allowed", "t"] == 50
    assert len(counted) == 2 * (101 + 150)
    for i in range(1500):
        metrics.batch_decided(batch(settled(Labels(), rule=RuleName("d", f"made-up-{i}", in_file=False))))
        metrics.batch_decided(batch(settled(Labels(), rule=RuleName("d", f"named-{i}"))))
    calls = samples(metrics, "extauth_rule_calls_total")
    assert calls["d", "other"] == 500
    assert sum(1 for _, rule in calls if rule.startswith("named")) == 1500
    assert sum(1 for _, rule in calls if rule.startswith("made-up")) == 1000


def test_calls_of_very_many_rules_are_all_counted() -> None:
    metrics = Metrics()
    groups = [settled(Labels(), rule=RuleName("d", f"{i}", in_file=False)) for i in range(25_000)]
    for group in groups + groups[:10]:
        metrics.batch_decided(batch(group))
    calls = samples(metrics, "extauth_rule_calls_total")
    assert sum(calls.values()) == 25_010
    assert [calls["d", f"{i}"] for i in range(12)] == [2] * 10 + [1] * 2
    metrics.batch_decided(batch(groups[0]))
    assert samples(metrics, "extauth_rule_calls_total")["d", "0"] == 3


def test_series_of_rules_that_are_no_more_in_force_are_bounded() -> None:
    metrics = Metrics()
    for reload in range(50):
        metrics.rules_loaded(100, "0", ok=True)
        metrics.batch_decided(batch(settled(Labels(), rule=A)))
        for i in range(100):
            metrics.batch_decided(batch(settled(Labels(), rule=RuleName("d", f"{reload}-{i}"))))
    calls = samples(metrics, "extauth_rule_calls_total")
    assert calls["d", "a"] == 50, "what goes on being used goes on being counted"
    assert len(calls) <= 1000 + 2 * 101
    assert all(calls["d", f"49-{i}"] == 1 for i in range(100))


def test_a_reload_keeps_what_was_counted_for_what_the_files_name() -> None:
    metrics = Metrics()

    def ask() -> None:
        for i in range(1500):
            metrics.batch_decided(batch(settled(Labels(), rule=RuleName("d", f"named-{i}"))))

    ask()
    for i in range(1500):
        metrics.batch_decided(batch(settled(Labels(), rule=RuleName("d", f"made-up-{i}", in_file=False))))
    for reload in range(2, 5):
        metrics.rules_loaded(1500, "0", ok=True)
        calls = samples(metrics, "extauth_rule_calls_total")
        assert all(calls["d", f"named-{i}"] == reload - 1 for i in range(1500))
        ask()


def test_label_values_are_escaped() -> None:
    metrics = Metrics()
    hostile = 'a"b\\c\nd{}'
    metrics.batch_decided(batch(settled(Labels(hostile), rule=RuleName(hostile, hostile))))
    assert samples(metrics, "extauth_rule_calls_total") == {(hostile, hostile): 1}


def test_calls_to_which_no_rule_applies_are_counted() -> None:
    metrics = Metrics()
    for domain in ("d", ""):
        template = PlanTemplate((), ((),), None, Labels(), domain, matched=False)
        metrics.batch_decided(batch(GroupResult(Plan((), template), 3, TakeResult(3, ()))))
    metrics.batch_decided(batch(settled(Labels())))
    assert samples(metrics, "extauth_unmatched_calls_total") == {("d",): 3, ("other",): 3}


@pytest.mark.parametrize("policy", list(OnStoreFailure))
@pytest.mark.parametrize("mode", [Mode.ENFORCED, Mode.SHADOW])
def test_failure_decisions_are_counted_as_what_callers_got(policy: OnStoreFailure, mode: Mode) -> None:
    metrics = Metrics()
    template = PlanTemplate((LimitCheck(Limit(9, Unit.DAY), 1, mode),), ((0,),), None, Labels())
    limiter = decider_of(options=LimiterOptions(on_store_failure=policy)).limiter
    failed = limiter.uncounted(Plan((b"k",), template, Tally((A,))), 3, Uncounted.UNSENT)
    metrics.batch_decided(batch(failed, error=StoreError("timeout", "")))
    verdict = limiter.verdict(failed, 0)
    got = "error" if verdict is None else "allow" if verdict.code is Code.OK else "deny"
    assert samples(metrics, "extauth_store_failure_decisions_total")[got,] == 3
    assert sum(samples(metrics, "extauth_store_failure_decisions_total").values()) == 3


def test_store_failures_are_counted_by_kind_and_by_what_calls_got() -> None:
    metrics = Metrics()
    limiter = decider_of(options=LimiterOptions(on_store_failure=OnStoreFailure.DENY)).limiter
    failed = limiter.uncounted(settled(Labels(), 0, 0).plan, 5, Uncounted.SENT)
    metrics.batch_decided(batch(failed, error=StoreError("timeout", "")))
    metrics.store_failed(StoreError("timeout", ""))
    metrics.breaker_changed(BreakerState.OPEN)
    assert samples(metrics, "extauth_store_errors_total") == {
        ("timeout",): 1,
        ("connection",): 0,
        ("reply",): 0,
        ("internal",): 0,
    }
    assert samples(metrics, "extauth_store_failure_decisions_total") == {
        ("local",): 0,
        ("allow",): 0,
        ("deny",): 5,
        ("error",): 0,
    }
    assert samples(metrics, "extauth_store_up") == {(): 0}
    assert samples(metrics, "extauth_store_breaker") == {("closed",): 0, ("open",): 1, ("half-open",): 0}
    assert samples(metrics, "http_requests_total") == {("none", "allowed", "none"): 0, ("none", "denied", "none"): 5}


@pytest.mark.parametrize("counting", [False, True])
def test_a_call_that_is_shed_is_counted_once(counting: bool) -> None:
    """Where it was with a batch already, that batch counts it."""
    metrics = Metrics(shed_reasons=["deadline", "waiting"])
    limiter = decider_of(options=LimiterOptions(on_store_failure=OnStoreFailure.DENY)).limiter
    plan = settled(Labels()).plan
    metrics.call_shed(ShedFact("deadline", limiter.uncounted(plan, 1, Uncounted.UNSENT), counting))
    if counting:
        metrics.batch_decided(batch(GroupResult(plan, 1, TakeResult(1, (WindowUsage(0, 0),)))))
    assert samples(metrics, "extauth_shed_calls_total") == {("deadline",): 1, ("waiting",): 0}
    allowed, denied = (
        samples(metrics, "http_requests_total")["none", status, "none"] for status in ("allowed", "denied")
    )
    assert (allowed, denied) == ((1, 0) if counting else (0, 1))


def test_guards_are_counted_from_0() -> None:
    metrics = Metrics(guards=["streams", "resets"])
    metrics.guard_tripped("resets")
    assert samples(metrics, "extauth_guard_trips_total") == {("streams",): 0, ("resets",): 1}


def test_decisions_are_counted_by_who_decided() -> None:
    metrics = Metrics()
    limiter = decider_of(options=LimiterOptions(on_store_failure=OnStoreFailure.DENY)).limiter
    local = TakeResult(1, (WindowUsage(0, 0),), Source.LOCAL)
    plan = settled(Labels()).plan
    for group in (
        settled(Labels(), 3, 5),
        REPEATED,
        NO_COUNTER,
        GroupResult(plan, 2, local, None, Uncounted.UNSENT),
        limiter.uncounted(plan, 4, Uncounted.SENT),
    ):
        metrics.batch_decided(batch(group))
    assert samples(metrics, "extauth_decisions_total") == {
        ("store",): 8,
        ("denial_cache",): 9,
        ("no_counter",): 1,
        ("local",): 2,
        ("failure_policy",): 4,
    }
    assert samples(metrics, "extauth_denial_cache_hits_total") == {(): 9}
    assert samples(metrics, "extauth_denial_cache_misses_total") == {(): 8}
    assert samples(metrics, "extauth_store_failure_decisions_total")["local",] == 2


def test_reloads_and_rules() -> None:
    metrics = Metrics()
    metrics.rules_loaded(7, "abc", ok=True)
    metrics.reloaded(ok=True)
    assert samples(metrics, "extauth_config_last_reload_successful") == {(): 1}
    assert samples(metrics, "extauth_config_last_reload_success_timestamp_seconds")[()] == pytest.approx(time(), abs=60)
    metrics.reloaded(ok=False)
    assert samples(metrics, "extauth_config_last_reload_successful") == {(): 0}
    assert samples(metrics, "extauth_config_info") == {("abc",): 1}
    metrics.rules_loaded(8, "def", ok=False)
    assert samples(metrics, "extauth_config_last_reload_successful") == {(): 0}
    assert samples(metrics, "extauth_config_info") == {("def",): 1}
    assert samples(metrics, "extauth_rules") == {(): 8}
    assert samples(metrics, "extauth_config_reloads_total") == {("ok",): 1, ("error",): 1}
