"""Counting in one replica while the store is away."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from extauth.counters.local import LOOKED_AT_ONCE, SETTLED_AT_ONCE, LocalCounters, SettlingCounters
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Owed, Uncounted
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.limiter.verdict import Labels
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from tests.support.clock import MINUTE, SECOND, Clock

SENT, UNSENT = Uncounted.SENT, Uncounted.UNSENT


class Rig:
    """A shared store, which may be away, and a replica that counts locally meanwhile."""

    def __init__(self, algorithm: Algorithm = Algorithm.GCRA, requests: int = 10, max_bytes: int = 1 << 20) -> None:
        self.clock = Clock()
        self.store = MemoryCounters(self.clock)
        self.local = LocalCounters(self.clock, max_bytes)
        self.settling = SettlingCounters(self.store, self.local)
        self.policy = FailurePolicy(OnStoreFailure.LOCAL, self.local)
        self.change(Limit(requests, Unit.MINUTE, algorithm, count_denied=False))

    def change(self, limit: Limit) -> None:
        self.limit = limit
        self.template = PlanTemplate((LimitCheck(limit, 1),), ((0,),), None, Labels())
        self._plans: dict[bytes, Plan] = {}

    def plan(self, name: bytes = b"k") -> Plan:
        return self._plans.setdefault(name, Plan((name,), self.template))

    async def shared(self, calls: int, name: bytes = b"k") -> int:
        (taken,) = await self.settling.take([Group(self.plan(name), calls)])
        return taken.admitted

    def alone(self, calls: int, how: Uncounted = UNSENT, name: bytes = b"k") -> int:
        result = self.policy.decide(self.plan(name), calls, how)
        assert result.taken is not None
        return result.taken.admitted


algorithms = pytest.mark.parametrize("algorithm", list(Algorithm))


@algorithms
async def test_it_begins_where_the_store_was(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    assert await rig.shared(7) == 7
    assert rig.alone(99) == 3


@algorithms
async def test_who_was_used_up_stays_so_until_the_limit_has_room_again(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    assert await rig.shared(99) == 10
    assert rig.alone(1) == 0
    rig.clock.sleep(2 * MINUTE)
    assert rig.alone(99) == 10


@algorithms
async def test_of_whom_nothing_is_known_begins_unused_and_is_limited(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    assert [rig.alone(1) for _ in range(12)] == [1] * 10 + [0, 0]


@algorithms
async def test_what_was_taken_alone_is_settled_in_front_of_the_next_take(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    assert await rig.shared(3) == 3
    assert rig.alone(4) == 4
    assert await rig.shared(99) == 3
    assert not rig.local.owes


@algorithms
@pytest.mark.parametrize("after", list(Algorithm))
@pytest.mark.parametrize("known", [0, 2])
async def test_what_is_owed_stays_so_when_the_limit_changes(algorithm: Algorithm, after: Algorithm, known: int) -> None:
    """By a reload, or where requests bring different limits of their own for one counter."""
    rig = Rig(algorithm)
    assert await rig.shared(known) == known
    for requests, kind in [(10, algorithm), (20, after), (10, algorithm), (20, after)]:
        rig.change(Limit(requests, Unit.MINUTE, kind, count_denied=False))
        assert rig.alone(2) == 2
    assert await rig.shared(99) == 20 - 8 - known


@algorithms
async def test_the_rest_is_settled_a_little_at_a_time(algorithm: Algorithm) -> None:
    rig = Rig(algorithm, max_bytes=8 << 20)
    names = [b"%d" % i for i in range(500)]
    for name in names:
        rig.alone(4, name=name)
    rounds = 1
    while await rig.settling.settle_some():
        rounds += 1
    assert rounds == 3
    others = LocalCounters(rig.clock)
    elsewhere = SettlingCounters(rig.store, others)
    takens = await elsewhere.take([Group(rig.plan(name), 99) for name in names])
    assert [taken.admitted for taken in takens] == [6] * 500


@algorithms
async def test_calls_that_were_sent_are_counted_alone_and_not_settled(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    assert rig.alone(4, SENT) == 4
    assert rig.alone(99, SENT) == 6
    assert not rig.local.owes
    assert await rig.shared(99) == 10, "whether the store counted them, only it knows"


async def test_denied_hits_that_stop_at_another_limit_are_not_owed_to_this_one() -> None:
    rig = Rig()
    small, large = (
        LimitCheck(Limit(requests, Unit.MINUTE, Algorithm.FIXED_WINDOW, count_denied=True), 1, stops=True)
        for requests in (2, 5)
    )
    both = Plan((b"small", b"large"), PlanTemplate((small, large), ((0,), (1,)), None, Labels()))
    taken = rig.policy.decide(both, 9, UNSENT).taken
    assert taken is not None
    assert taken.admitted == 2
    large_alone = Plan((b"large",), PlanTemplate((large,), ((0,),), None, Labels()))
    (taken,) = await rig.settling.take([Group(large_alone, 9)])
    assert taken.admitted == 3


async def test_hits_that_have_drained_meanwhile_are_not_settled() -> None:
    """300 hits over 30 s at 10 a second, added at once, would deny everybody for half a minute."""
    rig = Rig(requests=600)
    for _ in range(30):
        assert rig.alone(10) == 10
        rig.clock.sleep(SECOND)
    assert await rig.shared(9999) == 600


async def test_hits_of_a_window_that_has_ended_are_not_settled() -> None:
    rig = Rig(Algorithm.FIXED_WINDOW)
    assert rig.alone(10) == 10
    rig.clock.sleep(MINUTE)
    assert await rig.shared(99) == 10


async def test_an_answer_that_comes_late_holds_from_then_on() -> None:
    rig = Rig()
    assert rig.alone(2, SENT) == 2
    await rig.store.take([Group(rig.plan(), 6)])  # others'
    assert await rig.shared(2) == 2
    assert rig.alone(99) == 2


class Failing(MemoryCounters):
    """A store to which nothing can be settled."""

    sent = True

    async def settle(self, owed: Sequence[Owed]) -> None:
        raise StoreError("timeout", f"{len(owed)}", sent=self.sent)


@pytest.mark.parametrize(("sent", "owes"), [(True, False), (False, True)])
async def test_what_was_sent_is_never_sent_again(sent: bool, owes: bool) -> None:
    rig = Rig()
    store = Failing(rig.clock)
    store.sent = sent
    settling = SettlingCounters(store, rig.local)
    rig.alone(4)
    with pytest.raises(StoreError):
        await settling.settle_some()
    assert rig.local.owes is owes


async def test_calls_behind_a_settlement_that_failed_were_not_sent() -> None:
    rig = Rig()
    store = Failing(rig.clock)
    rig.alone(4)
    with pytest.raises(StoreError) as failed:
        await SettlingCounters(store, rig.local).take([Group(rig.plan(), 1)])
    assert not failed.value.sent
    assert not rig.local.owes, "what may have been settled is not settled again"


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 100)])
@algorithms
async def test_a_replica_admits_its_share(algorithm: Algorithm, share: Fraction) -> None:
    rig = Rig(algorithm)
    rig.policy.share = share
    assert rig.alone(99) == max(int(10 * share), 1)


@algorithms
async def test_who_was_used_up_is_so_in_a_share_and_what_a_share_took_is_settled_whole(algorithm: Algorithm) -> None:
    rig = Rig(algorithm)
    rig.policy.share = Fraction(1, 2)
    assert await rig.shared(10) == 10
    assert rig.alone(1) == 0
    assert rig.alone(99, name=b"other") == 5
    assert await rig.shared(99, b"other") == 5


async def test_where_it_is_full_who_has_no_counter_counts_as_used_up() -> None:
    rig = Rig(max_bytes=64 << 10)
    admitted = [rig.alone(1, name=b"%d" % i) for i in range(200)]
    assert admitted[0] == 1
    assert admitted[-1] == 0
    assert rig.alone(99, name=b"0") == 9, "who has one is served"


async def test_each_counter_has_the_clock_of_the_server_that_has_it() -> None:
    clock, ahead = Clock(), Clock()
    ahead.sleep(30 * SECOND)
    local = LocalCounters(clock, now_us_of=lambda name: ahead() if name == b"ahead" else clock())
    limit = Limit(1, Unit.MINUTE, Algorithm.FIXED_WINDOW, count_denied=False)

    def alone(name: bytes) -> int:
        group = Group(CounterSet((name,), (LimitCheck(limit, 1),)), 9)
        return local.take(group, group.take.checks, UNSENT).admitted

    assert [alone(name) for name in (b"ahead", b"other")] == [1, 1]
    for each in (clock, ahead):
        each.sleep(30 * SECOND)
    assert [alone(name) for name in (b"ahead", b"other")] == [1, 0]


def test_the_debtors_of_one_server_are_found_among_very_many_of_another() -> None:
    rig = Rig(max_bytes=64 << 20)
    for i in range(3 * LOOKED_AT_ONCE):
        rig.alone(1, name=b"other%d" % i)
    rig.alone(1, name=b"own")
    looks = [rig.local.some_debtors(lambda name: name == b"own") for _ in range(4)]
    assert [b"own"] in looks
    assert len(rig.local.some_debtors(lambda name: name != b"own")) == SETTLED_AT_ONCE


@algorithms
@pytest.mark.parametrize("ahead_us", [-90 * SECOND, 90 * SECOND])
@pytest.mark.parametrize("known", [0, 4])
async def test_each_counter_counts_by_the_clock_of_its_own_server(
    algorithm: Algorithm, ahead_us: int, known: int
) -> None:
    """Where servers' clocks differ, and a request's counters lie on two that are both away."""
    clock = Clock()
    skews_us = {b"a": 0, b"b": ahead_us}
    stores = {name: MemoryCounters(lambda name=name: clock() + skews_us[name]) for name in skews_us}  # type: ignore[misc]
    local = LocalCounters(clock, 1 << 20, now_us_of=lambda name: clock() + skews_us[name])
    policy = FailurePolicy(OnStoreFailure.LOCAL, local)
    check = LimitCheck(Limit(10, Unit.MINUTE, algorithm, count_denied=False), 1)
    alone = Plan((b"b",), PlanTemplate((check,), ((0,),), None, Labels()))
    plans = [Plan((b"a", b"b"), PlanTemplate((check, check), ((0,), (1,)), None, Labels())), alone]
    await SettlingCounters(stores[b"b"], local).take([Group(alone, known)])
    admitted = 0
    for i in range(20):
        taken = policy.decide(plans[i % 2], 1, UNSENT).taken
        assert taken is not None
        admitted += taken.admitted
    assert admitted == 10 - known
    for name, used in (b"a", admitted // 2), (b"b", 10):
        await local.settle([name], stores[name])
        (taken,) = await stores[name].take([Group(Plan((name,), alone.template), 99)])
        assert taken.admitted == 10 - used, "what was admitted is settled in the right window"
