"""Requests over several shards, each of which counts by itself."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Mode, Part
from extauth.rules.model import Algorithm, Limit, Unit
from tests.counters.bench import gcra, sliding, window
from tests.counters.shard_rig import E, Q, R, Rig, S, X, distinct, group_of
from tests.support.clock import SECOND
from tests.support.shards import SHARDS, on
from tests.support.takes import take


@pytest.fixture
def rig() -> Rig:
    return Rig()


NINE = window(9, count_denied=False)
OWN = [gcra(10), window(10, count_denied=False), sliding(10)]


@pytest.mark.parametrize("own", OWN, ids=str)
async def test_what_another_shard_denies_is_given_back(rig: Rig, own: Limit) -> None:
    shared = gcra(20, Unit.SECOND)
    assert (await rig.take((1, shared), calls=16)).admitted == 16
    assert (await rig.take((0, own), (1, shared), calls=9)).admitted == 4
    assert (await rig.left(0, own), await rig.left(1, shared)) == (6, 0)


async def test_a_used_up_caller_reserves_nothing_of_a_shared_limit(rig: Rig) -> None:
    own, shared = gcra(2), window(1000, Unit.SECOND, count_denied=False)
    assert (await rig.take((0, own), (1, shared), calls=2)).admitted == 2
    rig.shards.runs.clear()
    rig.shards.returned.clear()
    assert (await rig.take((1, shared), (0, own), calls=50)).admitted == 0
    assert [(shard, group.take.most) for shard, (group,) in rig.shards.runs if isinstance(group.take, Part)] == [
        (0, 50),
        (1, 0),
    ]
    assert not rig.shards.returned
    assert await rig.left(1, shared) == 998


async def test_limits_that_count_denied_hits_count_what_others_deny_and_give_nothing_back(rig: Rig) -> None:
    first, second = gcra(10, count_denied=True), window(20, Unit.SECOND)
    assert (await rig.take((2, gcra(0)), (0, first), (1, second), calls=6)).admitted == 0
    assert (await rig.left(0, first), await rig.left(1, second)) == (4, 14)
    assert (await rig.take((0, first), (3, gcra(1, Unit.SECOND)), calls=4)).admitted == 1
    assert await rig.left(0, first) == 0


async def test_what_never_denies_takes_only_for_calls_that_are_admitted(rig: Rig) -> None:
    wants = ((0, gcra(2)), (1, gcra(9, Unit.SECOND), 1, X), (2, gcra(1, Unit.SECOND), 1, R), (3, gcra(9), 1, X))
    taken = await rig.take(*wants, calls=5)
    assert taken.admitted == 2
    assert [await rig.left(shard, limit) for shard, limit, *_ in wants] == [0, 7, 0, 7]
    assert not rig.shards.returned


async def test_hits_are_returned_only_for_calls_that_are_admitted(rig: Rig) -> None:
    assert (await rig.take((0, gcra(10)), calls=9)).admitted == 9
    assert (await rig.take((0, gcra(10), -2, E), (1, gcra(3, Unit.SECOND)), calls=9)).admitted == 3
    assert await rig.left(0, gcra(10)) == 7


async def test_quotas_on_several_shards_reserve_what_fits_and_return_the_surplus(rig: Rig) -> None:
    small, large, own = gcra(2), gcra(5), gcra(4, Unit.SECOND)
    taken = await rig.take((0, small, 1, Q), (1, large, 1, Q), (2, own), calls=9)
    assert taken.admitted == 4
    assert [await rig.left(shard, limit) for shard, limit in enumerate((small, large, own))] == [0, 1, 0]


async def test_a_quota_over_its_limit_denies_nothing_while_another_shard_has_room(rig: Rig) -> None:
    assert (await rig.take((0, gcra(2), 1, Q), (1, gcra(5), 1, Q), calls=9)).admitted == 5
    assert (await rig.take((0, gcra(2), 1, Q), (1, gcra(5), 1, Q), calls=9)).admitted == 0


async def test_a_limit_is_asked_about_only_what_the_quotas_let_pass(rig: Rig) -> None:
    shared = gcra(100, Unit.SECOND)
    await rig.take((0, gcra(2), 1, Q), (1, gcra(3), 1, Q), (2, shared), calls=9)
    assert [group.take.most for shard, (group,) in rig.shards.runs if isinstance(group.take, Part) and shard == 2] == [
        3
    ]


def _asked(rig: Rig) -> list[int]:
    return [shard for shard, _ in rig.shards.runs]


@pytest.mark.parametrize(
    ("wants", "order"),
    [
        (((0, gcra(10)), (1, gcra(9))), [1, 0]),
        (((0, gcra(10)), (1, gcra(10))), [0, 1]),
        (((0, gcra(100)), (1, window(1, Unit.SECOND))), [1, 0]),
        (((0, window(2, Unit.SECOND)), (1, gcra(100))), [1, 0]),
        (((0, gcra(100)), (1, gcra(50)), (0, gcra(10))), [0, 1]),
        (((0, gcra(10)), (1, gcra(9), 1, X)), [0, 1]),
        (((0, gcra(1), 1, Q), (1, gcra(5)), (2, gcra(9), 1, Q)), [0, 2, 1]),
        (((0, gcra(5), 1, Q), (1, gcra(5)), (2, gcra(5), 1, Q)), [0, 2, 1]),
        (((0, gcra(9), 1, Q), (1, gcra(5))), [1, 0]),
    ],
    ids=str,
)
async def test_the_lowest_rate_is_asked_first_and_quotas_one_after_the_other(
    rig: Rig, wants: Sequence[tuple[int, Limit] | tuple[int, Limit, int, Mode]], order: list[int]
) -> None:
    await rig.counters.take([distinct(*wants)])
    assert _asked(rig) == order


@pytest.mark.parametrize(
    "wants",
    [
        # One counter that is held to several limits, which takes its hits once, and gives them back once.
        [(0, NINE, 1, E), (0, replace(NINE, requests_per_unit=8), 1, E), (1, gcra(3, Unit.SECOND), 1, E)],
        # One counter with a limit that denies and one that does not.
        [(0, gcra(2), 1, E), (0, gcra(9), 1, X), (1, gcra(1, Unit.SECOND), 1, E)],
        # Hits to return, on the shard that decides about quotas last.
        [(0, gcra(2), 1, Q), (1, gcra(3), 1, Q), (1, sliding(9), -1, X)],
        # A quota of which one limit gives hits back.
        [(0, gcra(9), -1, Q), (0, sliding(2), 1, S), (1, gcra(5), 1, E)],
        # A quota that gives hits back always has room, so that the other one denies nothing.
        [(0, gcra(9), -1, Q), (1, sliding(2), 1, Q), (1, gcra(5), 1, E)],
        [(0, gcra(9), -1, Q), (1, sliding(2), 1, Q)],
    ],
)
async def test_odd_requests_are_decided_as_on_one_server(rig: Rig, wants: list[tuple[int, Limit, int, Mode]]) -> None:
    oracle = MemoryCounters(rig.clock)
    for shard in {shard for shard, limit, *_ in wants if limit.algorithm is Algorithm.SLIDING_WINDOW}:
        for counters in (oracle, rig.shards.stores[shard]):
            await counters.take([Group(take((on(shard, Algorithm.SLIDING_WINDOW), sliding(9), 4)), 1)])
    for calls in (1, 2, 4, 9):
        group = Group(
            take(*((on(shard, limit.algorithm), limit, cost, mode) for shard, limit, cost, mode in wants)), calls
        )
        await rig.decides_as(oracle, group)


async def test_what_a_batch_asks_a_shard_at_a_time_is_one_run(rig: Rig) -> None:
    own, shared = gcra(10), gcra(100, Unit.SECOND)
    groups = [
        Group(take((on(0, str(caller)), own, 1), (on(1, "shared"), shared, 1)), 1 + caller) for caller in range(5)
    ]
    alone = Group(take((on(1, "alone"), own, 1)), 1)
    await rig.counters.take([*groups, alone])
    assert [(shard, len(asked)) for shard, asked in rig.shards.runs] == [(0, 5), (1, 1), (1, 5)]


async def test_a_whole_group_on_one_shard_is_asked_as_it_is(rig: Rig) -> None:
    group = group_of((2, gcra(10)), (2, window(5)), calls=3)
    await rig.counters.take([group])
    ((shard, (asked,)),) = rig.shards.runs
    assert (shard, asked) == (2, group)


# Beside one store that counts everything in one step.
requests = st.sampled_from([0, 1, 2, 3, 7, 10, 60])
limits = st.builds(
    Limit,
    requests,
    st.sampled_from([Unit.SECOND, Unit.MINUTE]),
    st.sampled_from(Algorithm),
    count_denied=st.booleans(),
)
costs = st.sampled_from([1, 1, 1, 2, 3, 0, -1, -3])
pauses = st.sampled_from([0, 0, 1, 999, SECOND, 6 * SECOND - 1, 61 * SECOND])


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Of up to four descriptors, each with up to two limits of its own, in any modes."""
    checks: list[LimitCheck] = []
    names: list[bytes] = []
    for name in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)):
        shard, cost = ord(name) % 3, draw(costs)
        first = mode = draw(st.sampled_from([E, E, E, Q, Q, R, X]))
        for which in range(draw(st.sampled_from([1, 1, 1, 2]))):
            again = draw(st.sampled_from([1, 1, 1, 2]))  # one counter with several limits
            limit = draw(limits)
            for capacity in sorted(draw(st.lists(requests, min_size=again, max_size=again, unique=True)), reverse=True):
                names.append(on(shard, f"{name}{which}"))
                held_to = replace(limit, requests_per_unit=capacity)
                own = held_to.algorithm is Algorithm.FIXED_WINDOW and draw(st.booleans())
                checks.append(LimitCheck(held_to, cost, mode, own and held_to.count_denied, own and not cost))
                mode = S if first is Q else first
    return Group(CounterSet(tuple(names), tuple(checks)), draw(st.integers(1, 5)))


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(st.tuples(groups(), pauses), min_size=1, max_size=8))
async def test_one_request_at_a_time_is_decided_as_on_one_server(steps: Sequence[tuple[Group, int]]) -> None:
    """The counters hold the same afterwards, or the next request would not be."""
    rig = Rig()
    oracle = MemoryCounters(rig.clock)
    for group, pause in steps:
        await rig.decides_as(oracle, group)
        rig.clock.sleep(pause)


def test_there_are_more_shards_than_the_requests_use() -> None:
    assert SHARDS > 3
