"""How many calls of each rule come near its limits, are over them, and would be denied but for shadow mode."""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import LimitCheck, Mode, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry.metrics import Metrics
from tests.support.clock import SECOND, Clock
from tests.support.facts import batch
from tests.support.scrape import samples
from tests.support.service import decider_of

NEAR, OVER, SHADOWED = (f"extauth_rule_{what}_total" for what in ("near_limit", "over_limit", "shadow_denied"))
TIERS = "extauth_tier_near_limit_total"


def limit(requests: int, algorithm: Algorithm = Algorithm.FIXED_WINDOW, *, count_denied: bool = False) -> Limit:
    return Limit(requests, Unit.MINUTE, algorithm, count_denied=count_denied)


def plan_of(*checks: LimitCheck, rules: str = "abcd") -> Plan:
    """A plan with a counter and, from `rules`, the name of a rule for each check."""
    template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
    tally = Tally(
        tuple(RuleName("d", rule) for rule, _ in zip(rules, checks, strict=False)),
        tuple(i for i, check in enumerate(checks) if check.mode is Mode.SHADOW),
    )
    return Plan(tuple(b"%d" % i for i in range(len(checks))), template, tally)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("groups", [[1] * 15, [15], [8, 2, 5], [7, 2, 6]])
async def test_calls_near_a_limit_are_those_that_fit_above_the_ratio(algorithm: Algorithm, groups: list[int]) -> None:
    metrics, limiter = Metrics(), decider_of().limiter
    plan = plan_of(LimitCheck(limit(10, algorithm), 1))
    for calls in groups:
        metrics.batch_decided(batch(*(await limiter.decide({plan: calls})).groups))
    assert samples(metrics, NEAR) == {("d", "a"): 2}
    assert samples(metrics, OVER) == {("d", "a"): 5}
    assert samples(metrics, "extauth_rule_calls_total") == {("d", "a"): 15}
    assert samples(metrics, SHADOWED) == {}


@pytest.mark.parametrize(
    ("ratio", "near"), [(0, 100), (0.29, 71), (0.57, 43), (0.8, 20), (0.805, 20), (0.991, 1), (1, 0)]
)
async def test_the_ratio_is_what_was_written(ratio: float, near: int) -> None:
    metrics, limiter = Metrics(near_limit_ratio=ratio), decider_of().limiter
    plan = plan_of(LimitCheck(limit(100), 1))
    for _ in range(110):
        metrics.batch_decided(batch(*(await limiter.decide({plan: 1})).groups))
    assert samples(metrics, NEAR) == {("d", "a"): near}


def expected(group: GroupResult, ratio: Fraction) -> tuple[int, int]:
    """The calls near the limits of a group's one rule, and those over them, told call by call from what is left."""
    assert group.taken is not None
    near = over = 0
    for call in range(group.calls):
        outcomes = [
            check.outcome(level, call, group.taken.admitted)
            for check, level in zip(group.plan.checks, group.taken.levels, strict=True)
        ]
        if any(outcome.over for outcome in outcomes):
            over += 1
        elif call < group.taken.admitted:
            near += any(
                check.cost > 0
                and outcome.remaining < check.limit.capacity - floor(Fraction(check.limit.capacity) * ratio)
                for check, outcome in zip(group.plan.checks, outcomes, strict=True)
            )
    return near, over


@st.composite
def rules(draw: st.DrawFn) -> Plan:
    """A rule with up to three limits, in shadow mode or not."""
    mode = draw(st.sampled_from([Mode.ENFORCED, Mode.SHADOW]))
    cost = draw(st.integers(-2, 5))
    number = draw(st.integers(1, 3))
    algorithm = draw(st.sampled_from(Algorithm))
    count_denied = draw(st.booleans())
    checks = []
    for _ in range(number):
        requests = draw(st.integers(0, 30))
        burst = draw(st.integers(1, 40)) if algorithm is Algorithm.GCRA and draw(st.booleans()) else None
        checks.append(
            LimitCheck(Limit(requests, Unit.MINUTE, algorithm, count_denied=count_denied, burst=burst), cost, mode)
        )
    return plan_of(*checks, rules="aaa")


@given(
    rules(),
    st.sampled_from(["0", "0.29", "0.5", "0.8", "1"]),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), min_size=1, max_size=6),
)
async def test_each_call_is_near_a_limit_over_it_or_neither(
    plan: Plan, ratio: str, groups: list[tuple[int, int]]
) -> None:
    clock = Clock()
    metrics, limiter = Metrics(near_limit_ratio=float(ratio)), decider_of(counters=MemoryCounters(clock)).limiter
    near = over = 0
    for calls, wait_s in groups:
        (group,) = (await limiter.decide({plan: calls})).groups
        metrics.batch_decided(batch(group))
        more_near, more_over = expected(group, Fraction(ratio))
        near, over = near + more_near, over + more_over
        clock.sleep(wait_s * SECOND)
    assert samples(metrics, NEAR) == {("d", "a"): near}
    assert samples(metrics, OVER) == {("d", "a"): over}
    if plan.checks[0].mode is Mode.SHADOW:
        assert samples(metrics, SHADOWED) == {("d", "a"): over}
        assert samples(metrics, TIERS) == {("none",): 0}
    else:
        assert samples(metrics, SHADOWED) == {}
        assert samples(metrics, TIERS) == {("none",): near}


@pytest.mark.parametrize(
    ("limits", "modes", "calls", "near"),
    [
        ((10, 10), [Mode.ENFORCED, Mode.ENFORCED], 12, 2),  # near both, and each call counts once
        ((10, 20), [Mode.ENFORCED, Mode.ENFORCED], 12, 2),
        ((20, 10), [Mode.ENFORCED, Mode.ENFORCED], 12, 2),
        ((10, 20), [Mode.SHADOW, Mode.ENFORCED], 18, 2),
        ((10, 20), [Mode.SHADOW, Mode.SHADOW], 18, 0),
        ((10, 20), [Mode.ENFORCED, Mode.ENFORCED], 8, 0),
    ],
)
async def test_an_admitted_call_is_near_a_limit_of_its_tier_once(
    limits: Sequence[int], modes: Sequence[Mode], calls: int, near: int
) -> None:
    metrics, limiter = Metrics(), decider_of().limiter
    plan = plan_of(*(LimitCheck(limit(most), 1, mode) for most, mode in zip(limits, modes, strict=True)))
    for _ in range(calls):
        metrics.batch_decided(batch(*(await limiter.decide({plan: 1})).groups))
    assert samples(metrics, TIERS) == {("none",): near}


@pytest.mark.parametrize(
    ("modes", "everything", "shadowed"),
    [
        ([Mode.SHADOW], False, [4]),
        ([Mode.ENFORCED], False, [None]),
        ([Mode.REPORT_ONLY], False, [None]),
        ([Mode.SHADOW, Mode.ENFORCED], False, [4, None]),
        ([Mode.REPORT_ONLY, Mode.SHADOW], True, [4, 4]),
    ],
)
async def test_what_rules_in_shadow_mode_would_deny_is_counted_from_0(
    modes: Sequence[Mode], everything: bool, shadowed: list[int | None]
) -> None:
    metrics, limiter = Metrics(everything_shadowed=everything), decider_of().limiter
    plan = plan_of(*(LimitCheck(limit(3), 1, mode) for mode in modes))
    for calls, counted in ((2, [each and 0 for each in shadowed]), (5, shadowed)):
        metrics.batch_decided(batch(*(await limiter.decide({plan: calls})).groups))
        series = samples(metrics, SHADOWED)
        assert [series.get(("d", rule)) for rule, _ in zip("ab", modes, strict=False)] == counted


def test_what_is_counted_locally_in_part_is_counted_for_its_own_rule() -> None:
    """Of two limits, one with the policy `allow`, only the other is counted while the store is away."""
    metrics = Metrics()
    options = LimiterOptions(local=LocalCounters(Clock()))
    limiter = decider_of(options=options).limiter
    allow = Limit(1, Unit.MINUTE, count_denied=False, on_store_failure=OnStoreFailure.ALLOW)
    plan = plan_of(LimitCheck(allow, 1), LimitCheck(limit(10), 1))
    metrics.batch_decided(batch(limiter.uncounted(plan, 12, Uncounted.UNSENT)))
    assert samples(metrics, "extauth_rule_calls_total") == {("d", "a"): 12, ("d", "b"): 12}
    assert samples(metrics, NEAR) == {("d", "a"): 0, ("d", "b"): 2}
    assert samples(metrics, OVER) == {("d", "a"): 0, ("d", "b"): 2}
