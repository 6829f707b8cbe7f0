"""What a request gets whose limits have failure policies of their own."""

from fractions import Fraction

import pytest

from extauth.counters.local import LocalCounters
from extauth.limiter.counters import LimitCheck, Mode, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from tests.support.clock import Clock

ALLOW, DENY, ERROR, LOCAL = (
    OnStoreFailure.ALLOW,
    OnStoreFailure.DENY,
    OnStoreFailure.ERROR,
    OnStoreFailure.LOCAL,
)
Want = tuple[OnStoreFailure | None, Mode]
E, Q, S, R, X = Mode.ENFORCED, Mode.QUOTA, Mode.SAME_QUOTA, Mode.REPORT_ONLY, Mode.SHADOW


def plan(*wants: Want) -> Plan:
    """A request of limits of 2, 3, 4, … requests, each with its policy and mode."""
    checks = tuple(
        LimitCheck(Limit(2 + i, Unit.MINUTE, Algorithm.GCRA, count_denied=False, on_store_failure=policy), 1, mode)
        for i, (policy, mode) in enumerate(wants)
    )
    template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
    return Plan(tuple(b"%d" % i for i in range(len(checks))), template)


def words(result: GroupResult) -> str:
    if result.taken is None:
        return str(result.given)
    return f"{result.taken.admitted} of {result.calls}"


@pytest.mark.parametrize(
    ("wants", "got"),
    [
        ([(None, E)], "2 of 9"),
        ([(LOCAL, E)], "2 of 9"),
        ([(ALLOW, E)], "allow"),
        ([(DENY, E)], "deny"),
        ([(ERROR, E)], "error"),
        ([(ALLOW, E), (LOCAL, E)], "3 of 9"),
        ([(LOCAL, E), (LOCAL, E)], "2 of 9"),
        ([(LOCAL, E), (DENY, E)], "deny"),
        ([(LOCAL, E), (ERROR, E)], "error"),
        ([(ERROR, E), (DENY, E), (ALLOW, E)], "deny"),
        ([(DENY, X)], "allow"),
        ([(ERROR, R)], "allow"),
        ([(LOCAL, X)], "allow"),
        ([(LOCAL, E), (DENY, X)], "2 of 9"),
        ([(LOCAL, X), (LOCAL, E)], "3 of 9"),
        ([(DENY, Q)], "deny"),
        ([(ERROR, Q), (DENY, Q)], "error"),
        ([(DENY, Q), (LOCAL, Q)], "3 of 9"),
        ([(LOCAL, Q), (LOCAL, Q)], "3 of 9"),
        ([(LOCAL, Q), (LOCAL, S), (LOCAL, Q)], "4 of 9"),
        ([(LOCAL, Q), (ALLOW, Q)], "allow"),
        ([(LOCAL, Q), (DENY, S), (LOCAL, Q)], "4 of 9"),
        ([(LOCAL, Q), (ALLOW, Q), (LOCAL, E)], "4 of 9"),
        ([(ERROR, Q), (DENY, S)], "deny"),
        ([(LOCAL, Q), (ERROR, S)], "error"),
        ([(LOCAL, Q), (LOCAL, Q), (DENY, S)], "2 of 9"),
        ([], "allow"),
    ],
)
def test_the_strictest_of_its_enforced_limits_and_the_most_lenient_quota(wants: list[Want], got: str) -> None:
    policy = FailurePolicy(LOCAL, LocalCounters(Clock()))
    assert words(policy.decide(plan(*wants), 9, Uncounted.UNSENT)) == got


def test_a_request_fails_only_while_its_local_limits_have_room() -> None:
    policy = FailurePolicy(LOCAL, LocalCounters(Clock()))
    alone, mixed = plan((LOCAL, E)), plan((LOCAL, E), (ERROR, E))
    assert words(policy.decide(mixed, 9, Uncounted.UNSENT)) == "error"
    assert words(policy.decide(alone, 2, Uncounted.UNSENT)) == "2 of 2", "a call that failed took nothing"
    assert words(policy.decide(mixed, 9, Uncounted.UNSENT)) == "deny"


def test_without_local_counters_local_lets_calls_through() -> None:
    assert words(FailurePolicy(LOCAL).decide(plan((None, E)), 9, Uncounted.SENT)) == "allow"


@pytest.mark.parametrize("share", [Fraction(1), Fraction(1, 2), Fraction(1, 100)])
def test_a_share_of_a_limit_of_nothing_admits_nothing(share: Fraction) -> None:
    policy = FailurePolicy(LOCAL, LocalCounters(Clock()))
    policy.share = share
    check = LimitCheck(Limit(0, Unit.MINUTE, Algorithm.GCRA, count_denied=False), 1)
    nothing = Plan((b"0",), PlanTemplate((check,), ((0,),), None, Labels()))
    assert words(policy.decide(nothing, 9, Uncounted.UNSENT)) == "0 of 9"


@pytest.mark.parametrize(
    ("share", "got"), [(Fraction(1), "10 of 99"), (Fraction(1, 2), "5 of 99"), (Fraction(1, 100), "1 of 99")]
)
def test_a_share_of_a_limit_has_a_share_of_its_burst(share: Fraction, got: str) -> None:
    policy = FailurePolicy(LOCAL, LocalCounters(Clock()))
    policy.share = share
    check = LimitCheck(Limit(60, Unit.MINUTE, Algorithm.GCRA, burst=10, count_denied=False), 1)
    burst = Plan((b"0",), PlanTemplate((check,), ((0,),), None, Labels()))
    assert words(policy.decide(burst, 99, Uncounted.UNSENT)) == got
