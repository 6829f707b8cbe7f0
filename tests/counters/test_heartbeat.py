"""What replicas learn of each other by their heartbeats, in real servers."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from extauth.counters.breaker import BreakerState
from extauth.counters.heartbeat import (
    MOST_SEEN_IN_S,
    Heartbeat,
    Replica,
    new_replica,
    read_lines,
    replica_of,
    worker_name,
)
from extauth.errors import StoreError
from tests.counters.heartbeat_rig import KEY, A, B, C, Rig, replicas
from tests.support.stores import Store


@pytest.fixture
async def rig(any_store: Store) -> AsyncIterator[Rig]:
    async with replicas(any_store) as rig:
        yield rig


async def test_each_replica_finds_the_others_and_not_itself(rig: Rig) -> None:
    a, b, c = map(rig.replica, (A, B, C))
    await a.beat()
    assert (a.others, a.most_seen()) == ((), 1)
    await b.beat()
    assert b.others == (A,)
    await c.beat()
    await a.beat()
    assert set(c.others) == {A, B}
    assert set(a.others) == {B, C}
    assert [each.most_seen() for each in (a, b, c)] == [3, 2, 3]


async def test_before_the_first_heartbeat_nobody_was_seen(rig: Rig) -> None:
    a = rig.replica(A)
    assert (a.others, a.most_seen()) == ((), 0)


@pytest.mark.parametrize(("after_s", "found"), [(9.9, (A,)), (10, ())])
async def test_a_heartbeat_holds_for_ten_seconds(rig: Rig, after_s: float, found: tuple[Replica, ...]) -> None:
    a, b = rig.replica(A), rig.replica(B)
    await a.beat()
    rig.wait(after_s)
    await b.beat()
    assert b.others == found


async def test_the_heartbeats_are_gone_soon_after_the_last_of_them(rig: Rig) -> None:
    await rig.replica(A).beat()
    assert 9_000 < await rig.client.pttl(KEY) <= 10_000


async def test_one_that_leaves_is_gone_at_once(rig: Rig) -> None:
    a, b = rig.replica(A), rig.replica(B)
    await a.beat()
    await b.beat()
    await a.leave()
    await b.beat()
    assert b.others == ()
    await b.leave()
    assert not await rig.client.exists(KEY)


async def test_one_that_takes_the_address_of_another_has_taken_its_place(rig: Rig) -> None:
    old, new, b = rig.replica(A), rig.replica(A._replace(version="2.0")), rig.replica(B)
    await old.beat()
    await new.beat()
    await b.beat()
    assert b.others == (A._replace(version="2.0"),)


async def test_without_an_address_none_takes_the_place_of_another(rig: Rig) -> None:
    c, d, b = rig.replica(C), rig.replica(C), rig.replica(B)
    for each in (c, d, b):
        await each.beat()
    assert b.others == (C, C)


async def test_the_most_replicas_of_the_last_minute_are_remembered(rig: Rig) -> None:
    a = rig.replica(A)
    for each in map(rig.replica, (B, C)):
        await each.beat()
    await a.beat()
    rig.wait(MOST_SEEN_IN_S / 2)
    await a.beat()
    assert (a.others, a.most_seen()) == ((), 3)
    rig.wait(MOST_SEEN_IN_S / 2)
    await a.beat()
    assert a.most_seen() == 3
    rig.wait(0.1)
    await a.beat()
    assert a.most_seen() == 1


async def test_those_before_a_long_failure_are_remembered_too(rig: Rig) -> None:
    """The minute ends with the last heartbeat: a store that comes back for an instant must not make this one alone."""
    a, b = rig.replica(A), rig.replica(B)
    await b.beat()
    await a.beat()
    rig.wait(3600)
    assert a.most_seen() == 2


async def test_however_many_there_are_the_newest_hold_16_kib(rig: Rig) -> None:
    long = "x" * 250 + ".example:8081"
    replicas = [rig.replica(Replica(f"{i}{long}", "1.2.3", "0123456789ab", "closed")) for i in range(100)]
    for each in replicas:
        await each.beat()
        assert await rig.client.strlen(KEY) <= 16_384
    found = [each.address for each in replicas[-1].others]
    assert found == [f"{i}{long}" for i in range(98, 98 - len(found), -1)]
    assert len(found) > 45


async def test_workers_count_by_themselves_and_are_one_replica_to_the_others(rig: Rig) -> None:
    replica = new_replica()
    first, second = (rig.replica(A, b"%d" % i, worker_name(replica, i)) for i in range(2))
    other = rig.replica(B, b"b")
    for each in (first, second, other, first):
        await each.beat()
    assert [each.most_seen() for each in (first, other)] == [3, 3]
    assert (first.others, other.others) == ((B,), (A,))
    assert (await first.read_reports(), sorted(await other.read_reports())) == ([b"b"], [b"0", b"1"])
    assert {replica_of(name) for name in other.reporting} == {replica}
    alike = replica[:-1] + ("1" if replica[-1] == "0" else "0")
    anew = rig.replica(A, name=worker_name(alike, 0))
    await anew.beat()
    await other.beat()
    assert (other.most_seen(), len(other.reporting)) == (3, 1), "at the address that it had before"


async def test_anybody_can_read_who_there_is(rig: Rig) -> None:
    assert read_lines(await rig.counters.read_heartbeats()) == {}
    for each in (A, B):
        await rig.replica(each).beat()
    assert sorted(read_lines(await rig.counters.read_heartbeats()).values()) == sorted([A, B])


async def test_short_heartbeats_hold_16_kib_too(rig: Rig) -> None:
    """What stands between them counts as well."""
    for i in range(400):
        await rig.replica(Replica(f"{i}:1", "1", "0", "closed")).beat()
        assert await rig.client.strlen(KEY) <= 16_384
    assert await rig.client.strlen(KEY) > 16_384 - 100


@pytest.mark.parametrize(
    "held",
    [
        b"\xff\xfe\x00 rubbish",
        b"a b c\n\n  \n",
        b"id notatime 10.0.0.9:1 v r closed",
        b"x" * 100_000,
        b"id 99999999999999 10.0.0.9:1 v r closed",  # a clock that was far ahead
        None,
    ],
)
async def test_what_is_no_heartbeat_is_dropped(rig: Rig, held: bytes | None) -> None:
    if held is None:
        await rig.client.lpush(KEY, "a value of another type")
    else:
        await rig.client.set(KEY, held)
    a, b = rig.replica(A), rig.replica(B)
    await a.beat()
    await b.beat()
    assert (a.others, b.others) == ((), (A,))


async def test_fields_that_a_later_version_adds_are_ignored(rig: Rig) -> None:
    a = rig.replica(A)
    await rig.counters.exchange_heartbeats("f00", "10.0.0.9:1", "9.9 abc open more and more")
    await a.beat()
    assert a.others == (Replica("10.0.0.9:1", "9.9", "abc", "open"),)


@pytest.mark.parametrize(
    ("rest", "shards"),
    [("1 a open 32", 32), ("1 a open 32 more", 32), ("1 a open", 16), ("1 a open 32x", 16), ("1 a open -1", 16)],
)
async def test_a_heartbeat_says_among_how_many_shards_counters_are_spread(rig: Rig, rest: str, shards: int) -> None:
    """Versions that did not say used 16."""
    a = rig.replica(A)
    await rig.counters.exchange_heartbeats("f00", "10.0.0.9:1", rest)
    await a.beat()
    assert a.others == (Replica("10.0.0.9:1", "1", "a", "open", shards),)
    b = rig.replica(B._replace(shards=48))
    await b.beat()
    await a.beat()
    assert {other.shards for other in a.others} == {shards, 48}


async def test_no_field_makes_a_line_of_its_own(rig: Rig) -> None:
    a, b = rig.replica(A._replace(version="1 0\nx 1 y z z", rules="")), rig.replica(B)
    await a.beat()
    await b.beat()
    assert b.others == (A._replace(version="10x1yzz", rules="-"),)


@pytest.mark.parametrize(
    ("state", "beats"), [(BreakerState.CLOSED, 1), (BreakerState.OPEN, 0), (BreakerState.HALF_OPEN, 0)]
)
async def test_the_store_is_left_alone_while_the_breaker_is_not_closed(state: BreakerState, beats: int) -> None:
    errors: list[StoreError | None] = []
    looked = asyncio.Event()

    class Failing:
        async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
            raise StoreError("connection", f"no connection for {replica} at {address}: {rest} {report!r}")

        async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
            raise StoreError("connection", f"no connection for {replicas}")

        def local_host(self) -> None:
            return None

    def look() -> BreakerState:
        looked.set()
        return state

    keeping = asyncio.create_task(Heartbeat(Failing(), lambda: A).keep(look, errors.append))
    await looked.wait()  # the first turn runs through, up to its pause
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert len(errors) == beats
