"""A denied request that comes again: admitted when its `retry-after` is over, and not before."""

from collections import Counter
from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rls.response import Verdict
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import Clock
from tests.support.service import decider_of

# None counts denied hits: there, asking too early is what makes the wait longer.
limits = st.builds(
    Limit,
    st.sampled_from([0, 1, 2, 7, 10]),
    st.sampled_from([Unit.SECOND, Unit.MINUTE, Unit.HOUR]),
    st.sampled_from(Algorithm),
    count_denied=st.just(value=False),
)
modes = st.lists(st.sampled_from([Mode.ENFORCED, Mode.QUOTA, Mode.SHADOW, Mode.REPORT_ONLY]), min_size=1, max_size=4)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to eight counters: each limit is enforced, one of a quota's, or denies nothing. A peek's cost nothing."""
    costs = draw(st.sampled_from([[1], [1, 2, 9], [0]]))
    checks = []
    for mode in draw(modes):
        checks.append(LimitCheck(draw(limits), draw(st.sampled_from(costs)), mode))
        if mode is Mode.QUOTA and draw(st.booleans()):
            checks.append(LimitCheck(draw(limits), draw(st.sampled_from(costs)), Mode.SAME_QUOTA))
    names = tuple(b"%d" % i for i in range(len(checks)))
    return Plan(names, PlanTemplate(tuple(checks), (tuple(range(len(checks))),), None, Labels()))


class Service:
    """A limiter and its counters, of which what-if copies can be made."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counters = MemoryCounters(self.clock)

    async def ask(self, plan: Plan, calls: int = 1) -> Verdict:
        """The verdict on the first of so many calls."""
        limiter = decider_of(counters=self.counters).limiter
        verdict = limiter.verdict((await limiter.decide(Counter({plan: calls}))).groups[0], 0)
        assert verdict is not None
        return verdict

    def later(self, duration_us: int) -> "Service":
        """A copy of it, so much later."""
        copy = deepcopy(self)
        copy.clock.sleep(duration_us)
        return copy


@settings(max_examples=500, deadline=None)
@given(
    plan=plans(),
    used=st.lists(st.sampled_from([0, 1, 99, 99]), min_size=8, max_size=8),
    pauses=st.lists(st.sampled_from([0, 1, 300_000, 7_000_000]), min_size=8, max_size=8),
)
async def test_who_waits_as_told_is_admitted_and_not_before(plan: Plan, used: list[int], pauses: list[int]) -> None:
    service = Service()
    for name, ask, calls, pause in zip(plan.names, plan.checks, used, pauses, strict=False):
        if calls:
            own = PlanTemplate((LimitCheck(ask.limit, 1),), ((0,),), None, Labels())
            await service.ask(Plan((name,), own), calls)
        service.clock.sleep(pause)
    denying = (await service.ask(plan)).denying
    if denying is None:
        return
    limit, wait_us, reset_us = denying
    assert limit in [ask.limit for ask in plan.checks]
    if wait_us is None:
        assert (await service.later(10**10).ask(plan)).denying is not None
        return
    assert 0 < wait_us <= reset_us
    just_before = (await service.later(wait_us - 1).ask(plan)).denying
    assert just_before is not None
    assert (just_before.limit, just_before.retry_after_us) == (limit, 1)
    assert (await service.later(wait_us).ask(plan)).denying is None
