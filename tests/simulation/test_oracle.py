"""The oracles of the simulation notice what must not be."""

from dataclasses import replace
from fractions import Fraction

import pytest

from extauth.limiter.counters import CounterSet, Group, Mode, Owed, Part, Return, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from simulation.oracle import Admission, Bound, check_alone, check_in_all
from simulation.store_oracle import StoreOracle
from tests.support.clock import MINUTE, NOON, SECOND
from tests.support.takes import take

LIMITS = {str(each): Limit(10, Unit.MINUTE, each, count_denied=False) for each in Algorithm}
algorithms = pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)


class Watched:
    """A store's oracle, and what it found wrong."""

    def __init__(self, limit: Limit) -> None:
        self.wrong: list[str] = []
        self.limit = limit
        self.take = take((b"k", limit, 1))
        self.oracle = StoreOracle({b"k": limit}, self.wrong.append)

    def admit(self, calls: int, at_us: int = NOON) -> None:
        self.oracle.taken([Group(self.take, calls)], [TakeResult(calls, ())], at_us)

    def reserve(self, calls: int, at_us: int = NOON) -> None:
        """Admit calls that another shard may still deny."""
        part = Part(self.take.names, self.take.checks, calls)
        self.oracle.taken([Group(part, calls)], [TakeResult(calls, ())], at_us)

    def give_back(self, hits: int, at_us: int = NOON) -> None:
        (name,), (check,) = self.take.names, self.take.checks
        self.oracle.given_back([Return(name, check.algorithm, hits, at_us)])


@algorithms
def test_the_store_may_admit_the_limit_and_not_one_more(limit: Limit) -> None:
    watched = Watched(limit)
    watched.admit(10)
    assert watched.wrong == []
    watched.admit(1)
    assert watched.wrong == [f"the store admitted 11 of k, {limit}"]


@algorithms
def test_after_a_period_the_store_may_admit_it_again(limit: Limit) -> None:
    watched = Watched(limit)
    for minute in range(3):
        watched.admit(10, NOON + minute * MINUTE)
    assert watched.wrong == []


@algorithms
def test_what_was_settled_is_used(limit: Limit) -> None:
    watched = Watched(limit)
    algorithm = watched.take.checks[0].algorithm
    numbers = algorithm.owed(None, algorithm.take(None, 4, NOON), NOON)
    watched.oracle.settled([Owed(b"k", algorithm, numbers)], NOON)
    watched.admit(6)
    assert watched.wrong == []
    watched.admit(1)
    assert len(watched.wrong) == 1


@algorithms
def test_lost_data_may_be_admitted_anew(limit: Limit) -> None:
    watched = Watched(limit)
    watched.admit(10)
    watched.oracle.lost_data()
    watched.admit(10)
    assert watched.wrong == []
    assert watched.oracle.losses == 1


@algorithms
def test_what_was_given_back_may_be_admitted_by_others(limit: Limit) -> None:
    watched = Watched(limit)
    watched.admit(2)
    watched.reserve(8, NOON + SECOND)
    watched.give_back(3, NOON + SECOND)
    watched.admit(3, NOON + SECOND)
    assert watched.wrong == []
    watched.admit(1, NOON + SECOND)
    assert len(watched.wrong) == 1


@algorithms
def test_hits_are_given_back_once(limit: Limit) -> None:
    watched = Watched(limit)
    watched.reserve(4)
    watched.reserve(3, NOON + SECOND)
    watched.give_back(4)
    watched.give_back(3, NOON + SECOND)
    assert watched.wrong == []
    watched.give_back(3, NOON + SECOND)
    assert watched.wrong == [f"3 hits of k were given back that were not taken at {NOON + SECOND}"]


@algorithms
def test_hits_of_lost_data_may_be_given_back_from_others(limit: Limit) -> None:
    watched = Watched(limit)
    watched.reserve(4)
    watched.oracle.lost_data()
    watched.reserve(10, NOON + SECOND)
    watched.give_back(4)
    watched.admit(4, NOON + SECOND)
    assert watched.wrong == []
    watched.admit(1, NOON + SECOND)
    assert len(watched.wrong) == 1


def test_a_bucket_drains_as_if_what_was_given_back_had_never_been_taken() -> None:
    watched = Watched(LIMITS[str(Algorithm.GCRA)])
    watched.reserve(4)
    watched.admit(2, NOON + 12 * SECOND)  # two have drained
    watched.give_back(4)
    watched.admit(8, NOON + 12 * SECOND)
    assert watched.wrong == []
    watched.admit(1, NOON + 12 * SECOND)
    assert len(watched.wrong) == 1


def test_a_bucket_that_is_only_looked_at_drains_by_a_clock_that_was_set_back() -> None:
    watched = Watched(LIMITS[str(Algorithm.GCRA)])
    watched.admit(1, NOON + MINUTE)
    watched.oracle.stepped(-MINUTE)
    checks = tuple(replace(check, mode=Mode.REPORT_ONLY) for check in watched.take.checks)
    watched.oracle.taken([Group(CounterSet(watched.take.names, checks), 1)], [TakeResult(1, ())], NOON)
    watched.admit(10, NOON + 6 * SECOND)
    assert watched.wrong == []
    watched.admit(1, NOON + 6 * SECOND)
    assert len(watched.wrong) == 1


def test_a_bucket_has_drained_before_its_clock_was_set_back_whatever_is_given_back_later() -> None:
    watched = Watched(LIMITS[str(Algorithm.GCRA)])
    watched.admit(9, NOON)
    watched.admit(0, NOON + 24 * SECOND)  # four have drained
    watched.oracle.stepped(-MINUTE)
    watched.reserve(1, NOON - 30 * SECOND)
    watched.give_back(1, NOON - 30 * SECOND)
    watched.admit(5, NOON - 30 * SECOND)
    assert watched.wrong == []
    watched.admit(1, NOON - 30 * SECOND)
    assert len(watched.wrong) == 1


def admissions(hits: int, alone: str | None, *, sent: bool = False, after_us: int = 0) -> list[Admission]:
    return [Admission(NOON + after_us, after_us, 1, alone, sent, Fraction(1, 2))] * hits


@pytest.mark.parametrize(
    ("admitted", "anew", "wrong"),
    [
        (admissions(10, None), 0, False),
        (admissions(11, None), 0, True),
        (admissions(10, None) + admissions(5, "a"), 0, False),
        (admissions(10, None) + admissions(6, "a"), 0, True),
        (admissions(10, None) + admissions(5, "a") + admissions(5, "b"), 0, False),
        (admissions(11, None) + admissions(5, "a") + admissions(5, "b"), 0, True),
        (admissions(10, None) + admissions(5, "a") + admissions(5, "a", sent=True), 0, False),
        (admissions(11, None) + admissions(5, "a") + admissions(5, "a", sent=True), 0, True),
        (admissions(20, None), 1, False),
        (admissions(21, None), 1, True),
        (admissions(10, None) + admissions(10, None, after_us=MINUTE), 0, False),
    ],
)
@algorithms
def test_in_all_the_limit_and_a_share_for_each_who_counted_alone(
    limit: Limit, admitted: list[Admission], anew: int, wrong: bool
) -> None:
    found: list[str] = []
    check_in_all(b"k", Bound(limit, 2, anew), admitted, [], found.append)
    assert bool(found) is wrong


@algorithms
def test_alone_a_replica_may_admit_its_share_and_not_one_more(limit: Limit) -> None:
    found: list[str] = []
    bound = Bound(limit, 2, 0)
    check_alone(b"k", bound, admissions(5, "a") + admissions(5, "a", after_us=MINUTE), found.append)
    assert found == []
    check_alone(b"k", bound, admissions(5, "a") + admissions(1, "a", after_us=SECOND), found.append)
    assert len(found) == 1


@algorithms
def test_a_share_is_the_largest_that_the_replica_had(limit: Limit) -> None:
    found: list[str] = []
    bound = Bound(limit, 2, 0)
    whole = [each._replace(share=Fraction(1)) for each in admissions(5, "a")]
    check_alone(b"k", bound, whole + admissions(5, "a"), found.append)
    check_in_all(b"k", bound, admissions(10, None) + whole + admissions(5, "a"), [], found.append)
    assert found == []
    check_alone(b"k", bound, whole + admissions(6, "a"), found.append)
    assert len(found) == 1


def test_a_bucket_drains_once_more_where_the_replica_hears_late_that_the_clock_was_set() -> None:
    limit = LIMITS[str(Algorithm.GCRA)]
    found: list[str] = []
    bound = Bound(limit, 2, 0)
    before = admissions(5, "a")
    unheard = [each._replace(elapsed_us=each.elapsed_us + SECOND) for each in before]
    check_alone(b"k", bound, before + unheard, found.append)
    assert len(found) == 1
    caught_up = [each._replace(at_us=each.at_us + MINUTE) for each in unheard]
    check_alone(b"k", bound, before + caught_up, found.append)
    check_in_all(b"k", bound, admissions(10, None) + before + caught_up, [], found.append)
    assert len(found) == 1
    check_in_all(b"k", bound, admissions(12, None) + before + caught_up, [], found.append)
    assert len(found) == 2
