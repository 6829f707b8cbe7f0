"""Hits by rule, counted as envoyproxy/ratelimit counts them."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.compat.hits import ReferenceHits, Stat
from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.facts import GroupResult, ShedFact
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry
from extauth.rules.masking import SecretKeys
from extauth.rules.model import Domain, Limit, OnStoreFailure, RuleSet, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry.masked_names import MaskedNames
from tests.support.clock import Clock
from tests.support.facts import batch
from tests.support.service import decider_of

DAY = Unit.DAY


def plan_of(*checks: LimitCheck, in_file: bool = True, rules: Sequence[str] = "abcd") -> Plan:
    """A plan with a counter and a rule for each check."""
    template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
    tally = Tally(tuple(RuleName("d", rule, in_file) for rule, _ in zip(rules, checks, strict=False)))
    return Plan(tuple(b"%d" % i for i in range(len(checks))), template, tally)


def counted(hits: ReferenceHits, rule: str = "a") -> dict[str, int]:
    """What was counted of a rule."""
    pieces = hits.table.values()
    return {stat: value for piece in pieces for (_, name, stat), value in piece if name == rule and value}


def reference(requests: int, cost: int, calls: int, ratio: str, *, shadow: bool) -> dict[str, int]:
    """The same, call by call from the counter before and after each, as the reference has it."""
    found: Counter[str] = Counter()
    near = int(requests * Fraction(ratio))
    before = 0
    for _ in range(calls):
        after = before + cost
        found[Stat.TOTAL_HITS] += cost
        if after > requests:
            over = cost if before >= requests else after - requests
            found[Stat.OVER_LIMIT] += over
            if before < requests:
                found[Stat.NEAR_LIMIT] += requests - max(near, before)
            if shadow:
                found[Stat.SHADOW_MODE] += over
        else:
            found[Stat.WITHIN_LIMIT] += cost
            if after > near:
                found[Stat.NEAR_LIMIT] += cost if before >= near else after - near
        before = after
    return {stat: value for stat, value in found.items() if value}


@given(
    st.integers(0, 30),
    st.integers(1, 7),
    st.lists(st.integers(1, 9), max_size=6),
    st.sampled_from(["0", "0.5", "0.8", "0.99", "1"]),
    st.booleans(),
)
async def test_hits_are_those_of_the_reference(
    requests: int, cost: int, groups: list[int], ratio: str, shadow: bool
) -> None:
    hits, limiter = ReferenceHits(float(ratio), MaskedNames()), decider_of().limiter
    plan = plan_of(LimitCheck(Limit(requests, DAY), cost, Mode.SHADOW if shadow else Mode.ENFORCED))
    for calls in groups:
        hits.batch_decided(batch(*(await limiter.decide({plan: calls})).groups))
    assert counted(hits) == reference(requests, cost, sum(groups), ratio, shadow=shadow)


@pytest.mark.parametrize("groups", [[5], [2, 3], [1] * 5])
async def test_a_call_that_another_limit_denies_is_within_its_own(groups: list[int]) -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of().limiter
    plan = plan_of(LimitCheck(Limit(2, DAY), 1), LimitCheck(Limit(9, DAY, count_denied=False), 1))
    for calls in groups:
        hits.batch_decided(batch(*(await limiter.decide({plan: calls})).groups))
    assert counted(hits, "a") == {"total_hits": 5, "within_limit": 2, "over_limit": 3, "near_limit": 1}
    assert counted(hits, "b") == {"total_hits": 5, "within_limit": 5}


@pytest.mark.parametrize("groups", [[5], [2, 3], [1] * 5])
async def test_a_rule_of_several_limits_counts_hits_once_by_the_tightest(groups: list[int]) -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of().limiter
    plan = plan_of(LimitCheck(Limit(9, DAY), 1), LimitCheck(Limit(2, DAY), 1), rules="aa")
    for calls in groups:
        hits.batch_decided(batch(*(await limiter.decide({plan: calls})).groups))
    assert counted(hits) == {"total_hits": 5, "within_limit": 2, "over_limit": 3, "near_limit": 1}


async def test_denied_hits_that_are_not_counted_are_over() -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of().limiter
    plan = plan_of(LimitCheck(Limit(10, DAY, count_denied=False), 4))
    hits.batch_decided(batch(*(await limiter.decide({plan: 4})).groups))
    assert counted(hits) == {"total_hits": 16, "within_limit": 8, "over_limit": 8}


async def test_denials_from_memory_have_a_series_of_their_own() -> None:
    clock = Clock()
    cached = DenialCache(MemoryCounters(clock), 9, clock)
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of("", cached).limiter
    plan = plan_of(LimitCheck(Limit(2, DAY, count_denied=False), 1))
    for _ in range(5):
        hits.batch_decided(batch(*(await limiter.decide({plan: 1})).groups))
    assert counted(hits) == {
        "total_hits": 5,
        "within_limit": 2,
        "near_limit": 1,
        "over_limit": 3,
        "over_limit_with_local_cache": 2,
    }


async def test_a_peek_counts_nothing_and_hits_given_back_are_told_apart() -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of().limiter
    for cost in (5, 0, -3):
        hits.batch_decided(batch(*(await limiter.decide({plan_of(LimitCheck(Limit(9, DAY), cost)): 2})).groups))
    assert counted(hits) == {
        "total_hits": 10,
        "within_limit": 5,
        "over_limit": 1,
        "near_limit": 2,
        "total_negative_hits": 6,
    }


def test_calls_that_were_not_counted_count_as_asked() -> None:
    hits = ReferenceHits(0.8, MaskedNames())
    plan = plan_of(LimitCheck(Limit(9, DAY), 2))
    hits.batch_decided(batch(GroupResult(plan, 3, None, OnStoreFailure.ALLOW)))
    hits.call_shed(ShedFact("late", GroupResult(plan, 1, None, OnStoreFailure.ALLOW), counting=False))
    hits.call_shed(ShedFact("late", GroupResult(plan, 1, None, OnStoreFailure.ALLOW), counting=True))
    assert counted(hits) == {"total_hits": 8}


async def test_names_from_requests_are_bounded() -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of().limiter
    for i in range(1100):
        plan = plan_of(LimitCheck(Limit(9, DAY), 1), rules=[f"k_{i}"], in_file=False)
        hits.batch_decided(batch(*(await limiter.decide({plan: 1})).groups))
    rules = {name for piece in hits.table.values() for (_, name, _), _ in piece}
    assert len(rules) == 1001
    assert counted(hits, "other")["total_hits"] == 100


async def test_a_name_that_must_not_be_shown_any_more_is_other() -> None:
    masked = MaskedNames()
    masked.rules_loaded(RuleSet({"d": Domain("d")}))
    hits, decider = (
        ReferenceHits(0.8, masked),
        decider_of(
            "domain: d\ndescriptors:\n- {key: plan, value: gold, rate_limit: {unit: day, requests_per_unit: 9}}"
        ),
    )
    plan = decider.planner.plan(encode_request("d", [Descriptor((Entry("plan", "gold"),))]))
    hits.batch_decided(batch(*(await decider.limiter.decide({plan: 1})).groups))
    assert counted(hits, "plan_gold") == {"total_hits": 1, "within_limit": 1}
    masked.rules_loaded(RuleSet({"d": Domain("d", secret=SecretKeys(frozenset({"plan"})))}))
    hits.rules_loaded()
    hits.batch_decided(batch(*(await decider.limiter.decide({plan: 1})).groups))
    assert counted(hits, "plan_gold") == {"total_hits": 1, "within_limit": 1}
    assert counted(hits, "other") == {"total_hits": 1, "within_limit": 1}


async def test_limits_are_forgotten_when_other_rules_are_loaded() -> None:
    hits, limiter = ReferenceHits(0.8, MaskedNames()), decider_of("domain: d").limiter
    limit = Limit(3, DAY)
    hits.batch_decided(batch(*(await limiter.decide({plan_of(LimitCheck(limit, 1)): 5})).groups))
    assert any(limit in table for table in hits.rules_loaded())
    assert not any(limit in table for table in hits.rules_loaded())
