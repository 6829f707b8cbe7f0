"""The templates beside the plain encoder, and that beside envoy-data-plane."""

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.limiter.algorithms import Level
from extauth.limiter.counters import LimitCheck, Mode, TakeResult, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import UNLIMITED_AT, Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rls.response import Code, DenyingLimit, DescriptorStatus, Verdict, encode_response, whole_seconds
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from tests.support.service import decider_of

text = st.text(max_size=10)
requests = st.sampled_from([0, 1, 2, 7, 10, 1000, 2**32 - 1])
limits = st.builds(
    Limit,
    requests,
    st.sampled_from(Unit),
    st.sampled_from(Algorithm),
    count_denied=st.booleans(),
    name=st.sampled_from(["", "é", "gold"]),
)
costs = st.sampled_from([1, 2, 11, 2**32 - 1, 0, -1])
modes = st.sampled_from([Mode.ENFORCED, Mode.ENFORCED, Mode.QUOTA, Mode.SHADOW, Mode.REPORT_ONLY])
wholes = st.integers(0, 12) | st.integers(0, 100_000_000) | st.integers(0, 2**40)


@st.composite
def settled(draw: st.DrawFn) -> GroupResult:
    """Counters at levels that a store may tell, in descriptors of which some have no limit and some share a counter."""
    checks: list[LimitCheck] = []
    levels = []
    calls = draw(st.integers(1, 5))
    for _ in range(draw(st.integers(0, 3))):
        limit = draw(limits)
        follows = checks and checks[-1].mode in {Mode.QUOTA, Mode.SAME_QUOTA}
        checks.append(
            LimitCheck(limit, draw(costs), Mode.SAME_QUOTA if follows and draw(st.booleans()) else draw(modes))
        )
        ticks = limit.emission_interval[1] if limit.algorithm is Algorithm.GCRA else 60_000_000
        levels.append(checks[-1].algorithm.read(draw(wholes), draw(st.integers(0, ticks - 1))))
    own = list(range(len(checks)))
    more = draw(st.lists(st.sampled_from([None, *own]), max_size=3))
    counters_of: list[tuple[int, ...]] = [() if i is None else (i,) for i in draw(st.permutations([*own, *more]))]
    if len(own) > 1 and draw(st.booleans()):
        counters_of.append(tuple(own))
    if draw(st.booleans()):
        counters_of.append(UNLIMITED_AT)
    template = PlanTemplate(tuple(checks), tuple(counters_of), draw(st.sampled_from([None, "free", "é"])), Labels())
    plan = Plan(tuple(b"%d" % i for i in own), template)
    if not checks:
        return GroupResult(plan, calls, TakeResult(calls, ()))
    if draw(st.integers(0, 9)) == 0:
        return GroupResult(plan, calls, None, draw(st.sampled_from(OnStoreFailure)))
    return GroupResult(plan, calls, TakeResult(_admitted(checks, levels, calls), tuple(levels)))


def _admitted(checks: list[LimitCheck], levels: list[Level], calls: int) -> int:
    """How many of the calls are admitted."""
    fits = [(check.mode, check.calls_that_fit(level)) for check, level in zip(checks, levels, strict=True)]
    quotas: list[int] = []
    for mode, fit in fits:
        if mode is Mode.QUOTA:
            quotas.append(fit)
        elif mode is Mode.SAME_QUOTA:
            quotas[-1] = min(quotas[-1], fit)
    return min([calls, *(fit for mode, fit in fits if mode is Mode.ENFORCED), *([max(quotas)] if quotas else [])])


@settings(max_examples=400, deadline=None)
@given(st.lists(settled(), min_size=1, max_size=4))
def test_templates_write_what_the_plain_encoder_writes(batch: list[GroupResult]) -> None:
    _, limiter, answers = decider_of()
    verdicts = [[limiter.verdict(group, call) for call in range(group.calls)] for group in batch]
    want = [[Uncounted.UNSENT if v is None else encode_response(v) for v in each] for each in verdicts]
    again = [*batch, *batch]
    encoded = [[each] if isinstance(each, bytes) else list(each) for each in answers.encode_all(again)]
    assert encoded == [*want, *want], "the second time from memory"
    assert [answers.encode(group) for group in batch] == want


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("name_size", [0, 200, 1_030, 1_050, 17_000])
@pytest.mark.parametrize("requests", [100, 0x800, 0x801, 0x4000, 0x4001, 2**32 - 1])
def test_numbers_take_as_many_bytes_as_they_need(requests: int, name_size: int, calls: int) -> None:
    limit = Limit(requests, Unit.DAY, Algorithm.GCRA, name="n" * name_size)
    check = LimitCheck(limit, 1)
    plan = Plan((b"a",), PlanTemplate((check,), ((0,),), None, Labels()))
    group = GroupResult(plan, calls, TakeResult(calls, (check.algorithm.read(0, 0),)))
    _, limiter, answers = decider_of()
    verdicts = [limiter.verdict(group, call) for call in range(calls)]
    (encoded,) = answers.encode_all([group])
    written = [encoded] if isinstance(encoded, bytes) else list(encoded)
    assert written == [encode_response(verdict) for verdict in verdicts if verdict is not None]


durations = st.integers(0, 2**52)
statuses = st.builds(
    DescriptorStatus, st.sampled_from(Code), st.none() | limits, st.integers(0, 2**32 - 1), durations
) | st.sampled_from(Code).map(DescriptorStatus)
verdicts = st.builds(
    Verdict,
    st.sampled_from(Code),
    st.lists(statuses, max_size=4).map(tuple),
    st.none() | text,
    st.none() | st.builds(DenyingLimit, limits, st.none() | durations, durations),
)


@settings(max_examples=300, deadline=None)
@given(verdicts)
def test_envoy_data_plane_reads_what_was_meant(verdict: Verdict) -> None:
    response = RateLimitResponse.parse(encode_response(verdict))
    assert int(response.overall_code) == verdict.code
    for told, status in zip(response.statuses, verdict.statuses, strict=True):
        assert int(told.code) == status.code
        assert (told.current_limit is None) == (status.limit is None)
        if status.limit is not None and told.current_limit is not None and told.duration_until_reset is not None:
            limit = told.current_limit
            assert (limit.name, limit.requests_per_unit) == (status.limit.name, status.limit.requests_per_unit)
            assert int(limit.unit) == status.limit.unit.number
            assert told.limit_remaining == status.remaining
            assert told.duration_until_reset.total_seconds() == whole_seconds(status.reset_us)
    tier = [(header.key, header.value) for header in response.request_headers_to_add]
    assert tier == (
        [("x-ratelimit-tier", verdict.tier)] if verdict.code is Code.OK and verdict.tier is not None else []
    )
    assert (response.raw_body == b"") == (verdict.code is Code.OK)
