"""What settling leaves in Redis, beside states that a test of the arithmetic does not come to."""

import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.algorithms import algorithm_of
from extauth.limiter.counters import Group, Owed
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import MINUTE, SECOND, Clock
from tests.support.stores import Store
from tests.support.takes import take

LIMITS = {str(each): Limit(10, Unit.MINUTE, each, count_denied=False) for each in Algorithm}
FIXED, SLIDING, GCRA = LIMITS.values()
MAX_ENTRIES = 10_000
MAX_HITS = 2**53 - 1


@dataclass(frozen=True)
class Rig:
    """Counters in a server of the test's own, on a clock that the test sets."""

    counters: RedisCounters
    clock: Clock
    client: Redis

    async def settle(self, limit: Limit, *numbers: int, name: bytes = b"c") -> None:
        await self.counters.settle([Owed(name, algorithm_of(limit), numbers)])

    async def admitted(self, limit: Limit, calls: int = 99) -> int:
        (taken,) = await self.counters.take([Group(take((b"c", limit, 1)), calls)])
        return taken.admitted

    async def put_log(self, entries: Sequence[tuple[int, int]], *, base: int = 0) -> None:
        """A sliding window's log of (instant, total)."""
        head = struct.pack("<Bddddd", 3, MINUTE, 0, base, entries[-1][1], entries[-1][0])
        await self.client.set("c", head + b"".join(struct.pack("<dd", *entry) for entry in entries))

    async def log(self) -> list[tuple[float, float]]:
        state = await self.client.get("c")
        assert isinstance(state, bytes)
        return list(struct.iter_unpack("<dd", state[41:]))


@pytest.fixture
async def rig(own_store: Store, client: Redis) -> AsyncIterator[Rig]:
    clock = Clock()
    counters = RedisCounters(own_store.url, 10, clock)
    yield Rig(counters, clock, client)
    await counters.aclose()


def owed(limit: Limit, hits: int, now: int) -> tuple[int, ...]:
    algorithm = algorithm_of(limit)
    return tuple(algorithm.owed(None, algorithm.take(None, hits, now), now))


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
async def test_a_foreign_value_does_not_keep_others_from_being_settled(rig: Rig, limit: Limit) -> None:
    await rig.client.rpush("list", "x")
    algorithm, now = algorithm_of(limit), rig.clock()
    both = [Owed(name, algorithm, owed(limit, 4, now)) for name in (b"list", b"c")]
    await rig.counters.settle(both)
    assert await rig.client.type("list") == b"string"
    assert await rig.admitted(limit) == 6


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
async def test_what_is_owed_comes_on_top_of_what_the_store_knew(rig: Rig, limit: Limit) -> None:
    assert await rig.admitted(limit, 3) == 3
    await rig.settle(limit, *owed(limit, 4, rig.clock()))
    assert await rig.admitted(limit) == 3


async def test_hits_of_a_window_that_has_ended_do_not_count_in_the_next(rig: Rig) -> None:
    numbers = owed(FIXED, 4, rig.clock())
    rig.clock.sleep(MINUTE)
    await rig.settle(FIXED, *numbers)
    assert await rig.admitted(FIXED) == 10


async def test_hits_that_have_left_the_window_do_not_come_into_the_log(rig: Rig) -> None:
    now = rig.clock()
    await rig.settle(SLIDING, now - MINUTE, 4, now - SECOND, 2)
    assert await rig.log() == [(now - SECOND, 2)]


async def test_each_counter_is_settled_by_its_own_limit(rig: Rig) -> None:
    now = rig.clock()
    other = Limit(5, Unit.HOUR, Algorithm.FIXED_WINDOW)
    await rig.counters.settle(
        [
            Owed(b"other", algorithm_of(other), owed(other, 1, now)),
            *(Owed(name.encode(), algorithm_of(limit), owed(limit, 4, now)) for name, limit in LIMITS.items()),
        ]
    )
    for name, limit in LIMITS.items():
        (taken,) = await rig.counters.take([Group(take((name.encode(), limit, 1)), 99)])
        assert taken.admitted == 6


async def test_hits_from_a_clock_that_is_ahead_count_from_now(rig: Rig) -> None:
    await rig.settle(SLIDING, rig.clock() + 30 * SECOND, 4)
    rig.clock.sleep(61 * SECOND)
    assert await rig.admitted(SLIDING) == 10


async def test_hits_that_had_left_the_window_do_not_count_again(rig: Rig) -> None:
    now = rig.clock()
    await rig.put_log([(now - 2 * SECOND, 1007)], base=1000)
    await rig.settle(SLIDING, now - 3 * SECOND, 1, now - SECOND, 1)
    assert await rig.log() == [(now - 3 * SECOND, 1001), (now - 2 * SECOND, 1008), (now - SECOND, 1009)]
    assert await rig.admitted(SLIDING) == 1


@pytest.mark.parametrize("now", [False, True])
async def test_a_full_log_grows_no_further(rig: Rig, now: bool) -> None:
    newest = rig.clock() - 10 * SECOND
    begun = newest - 2 * MAX_ENTRIES
    await rig.put_log([(begun + 2 * total, total) for total in range(1, MAX_ENTRIES + 1)])
    middle = begun + MAX_ENTRIES + 1
    await rig.settle(SLIDING, rig.clock() if now else middle, 3)
    log = await rig.log()
    assert (len(log), log[-1][1]) == (MAX_ENTRIES, MAX_ENTRIES + 3)
    assert log == sorted(log)


async def test_a_log_that_is_settled_holds_no_more_hits_than_doubles_can(rig: Rig) -> None:
    await rig.put_log([(rig.clock() - SECOND, MAX_HITS - 1)])
    await rig.settle(SLIDING, rig.clock(), 5)
    assert (await rig.log())[-1][1] == MAX_HITS


@pytest.mark.parametrize("limit", [GCRA, FIXED], ids=["gcra", "fixed_window"])
async def test_a_state_in_other_terms_keeps_its_hits(rig: Rig, limit: Limit) -> None:
    assert await rig.admitted(limit, 4) == 4
    await rig.settle(SLIDING, rig.clock() - SECOND, 3)
    assert await rig.admitted(SLIDING) == 3
