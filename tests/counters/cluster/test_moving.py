"""Takes from a slot that is moving from one master to another, or has moved."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from extauth.counters.local import LocalCounters
from extauth.counters.redis.cluster.counters import ClusterCounters
from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.master import Master
from extauth.counters.redis.cluster.takes import ClusterTakes
from extauth.counters.several_shards import SeveralShards
from extauth.errors import StoreError
from extauth.limiter.algorithms import algorithm_of
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.counters import Group, Owed
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.cluster import RealCluster
from tests.support.moving_slot import LIMIT, MovingSlot
from tests.support.takes import take
from tests.support.wait import until_async


@pytest.fixture
def slot(shared_cluster: Callable[[str], RealCluster], server: str) -> Iterator[MovingSlot]:
    slot = MovingSlot(shared_cluster(server))
    yield slot
    slot.move_back()


@pytest.fixture
async def counters(slot: MovingSlot) -> AsyncIterator[ClusterCounters]:
    counters = ClusterCounters(slot.cluster.url, 10)
    await counters.connect()
    yield counters
    await counters.aclose()


SLOW = Limit(100, Unit.DAY, Algorithm.SLIDING_WINDOW, count_denied=False)

pytestmark = pytest.mark.parametrize("server", ["valkey", "redis"])


async def admitted(counters: ClusterCounters, *groups: Group) -> list[int]:
    return [taken.admitted for taken in await counters.take(groups)]


async def test_a_slot_that_has_moved_is_followed_and_then_known(slot: MovingSlot, counters: ClusterCounters) -> None:
    assert await admitted(counters, slot.group("a", calls=7)) == [7]
    slot.begin()
    slot.finish()
    assert await admitted(counters, slot.group("a", calls=7)) == [3]

    async def known() -> bool:
        master = counters.topology.master_of(slot.name("a"))
        return master is not None and master.address.port == slot.target.port

    await until_async(known)
    assert await admitted(counters, slot.group("a", "b")) == [0]


async def test_a_single_counter_is_asked_where_it_is(slot: MovingSlot, counters: ClusterCounters) -> None:
    assert await admitted(counters, slot.group("a", calls=7), slot.group("b", calls=7)) == [7, 7]
    slot.begin()
    slot.move("a")
    groups = [slot.group(name, calls=7) for name in "abc"]
    assert await admitted(counters, *groups) == [3, 3, 7]
    assert (slot.at(slot.source), slot.at(slot.target)) == ({slot.name("b")}, {slot.name("a"), slot.name("c")})


async def test_a_batch_in_a_slot_that_is_moving_is_taken_apart(slot: MovingSlot, counters: ClusterCounters) -> None:
    assert await admitted(counters, slot.group("a", calls=7), slot.group("b", calls=7)) == [7, 7]
    slot.begin()
    slot.move("a")
    groups = [slot.group(name, calls=7) for name in "abc"]
    takens = await counters.take_at(master_of(counters, slot), groups)
    assert [taken.admitted for taken in takens] == [3, 3, 7]  # type: ignore[union-attr]


async def test_several_counters_that_exist_nowhere_begin_at_the_target(
    slot: MovingSlot, counters: ClusterCounters
) -> None:
    slot.begin()
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [7]
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [3]
    assert (slot.at(slot.source), slot.at(slot.target)) == (set(), {slot.name("a"), slot.name("b")})
    slot.finish()
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [0]


async def test_several_counters_of_which_one_has_expired_are_taken_where_the_others_are_gone(
    slot: MovingSlot, counters: ClusterCounters
) -> None:
    assert await admitted(counters, slot.group("a", calls=7)) == [7]
    slot.begin()
    slot.move("a")
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [3]
    assert slot.at(slot.target) == {slot.name("a"), slot.name("b")}


async def test_several_counters_that_have_not_moved_are_taken_where_they_are(
    slot: MovingSlot, counters: ClusterCounters
) -> None:
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [7]
    slot.begin()
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [3]
    assert slot.at(slot.target) == set()


async def test_counters_on_both_sides_are_not_counted_and_nothing_was_sent(
    slot: MovingSlot, counters: ClusterCounters
) -> None:
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [7]
    slot.begin()
    slot.move("a")
    with pytest.raises(StoreError, match="its slot of the Redis Cluster is moving") as raised:
        await counters.take([slot.group("a", "b")])
    assert not raised.value.sent
    slot.move("b")
    assert await admitted(counters, slot.group("a", "b", calls=7)) == [3]


async def test_what_is_owed_is_added_wherever_each_counter_is(slot: MovingSlot, counters: ClusterCounters) -> None:
    assert await admitted(counters, *(slot.group(name, calls=2) for name in "ab")) == [2, 2]
    slot.begin()
    slot.move("a")
    algorithm = algorithm_of(LIMIT)
    numbers = algorithm.owed(None, algorithm.take(None, 3, counters.now_us()), counters.now_us())
    await counters.settle([Owed(slot.name(name), algorithm, numbers) for name in "abc"])
    assert await admitted(counters, *(slot.group(name, calls=9) for name in "abc")) == [5, 5, 7]


async def test_counters_are_deleted_wherever_they_are(slot: MovingSlot, counters: ClusterCounters) -> None:
    await counters.take([slot.group(name) for name in "ab"])
    slot.begin()
    slot.move("a")
    assert await counters.forget([slot.name(name) for name in "abc"]) == 2
    assert slot.at(slot.source) | slot.at(slot.target) == set()


def master_of(counters: ClusterCounters, slot: MovingSlot) -> Master:
    master = counters.topology.master_of(slot.name("a"))
    assert master is not None
    return master


async def test_counters_on_both_sides_are_taken_one_by_one(slot: MovingSlot, counters: ClusterCounters) -> None:
    guard = ClusterGuard(counters, LocalCounters(counters.now_us), ShardOf())
    several = SeveralShards(guard)
    takes = ClusterTakes(guard, several)
    await guard.look()
    slow = (slot.name("b"), SLOW, 1)
    await counters.take([slot.group("a", calls=7), Group(take(slow), 1)])
    slot.begin()
    slot.move("a")
    both = Group(take((slot.name("a"), LIMIT, 1), slow), 7)
    assert [taken.admitted for taken in await takes.take([both])] == [3]  # type: ignore[union-attr]

    async def given_back() -> bool:  # what b, which is asked first, took for the calls that a denied
        (taken,) = await counters.take([Group(take((slot.name("b"), SLOW, 0)), 1)])
        return algorithm_of(SLOW).used_hits(taken.levels[0]) == 1 + 3

    await until_async(given_back)
    await guard.aclose()
