"""What replicas report with their heartbeats, in real servers."""

from collections.abc import AsyncIterator

import pytest

from extauth.counters.redis.registry import REPORTS_A_RUN
from tests.counters.heartbeat_rig import KEY, A, B, C, Rig, replicas
from tests.support.stores import Store


@pytest.fixture
async def rig(any_store: Store) -> AsyncIterator[Rig]:
    async with replicas(any_store) as rig:
        yield rig


async def test_each_reads_the_reports_of_the_others(rig: Rig) -> None:
    full = b"\x00\n" + b"x" * 16_382
    a, b, c = rig.replica(A, full), rig.replica(B, b"b"), rig.replica(C)
    for each in (a, b, c, a):
        await each.beat()
    assert dict(zip(a.others, await a.read_reports(), strict=True)) == {B: b"b", C: b""}
    await c.beat()
    assert dict(zip(c.others, await c.read_reports(), strict=True)) == {A: full, B: b"b"}
    await b.leave()
    assert dict(zip(c.others, await c.read_reports(), strict=True)) == {A: full, B: b""}


async def test_many_reports_are_read_in_portions(rig: Rig) -> None:
    reader = rig.replica(A)
    for i in range(2 * REPORTS_A_RUN + 1):
        await rig.replica(C, b"%d" % i).beat()
    await reader.beat()
    assert sorted(await reader.read_reports()) == sorted(b"%d" % i for i in range(2 * REPORTS_A_RUN + 1))


async def test_alone_there_are_no_reports(rig: Rig) -> None:
    a = rig.replica(A, b"a")
    await a.beat()
    assert await a.read_reports() == []


async def test_a_report_is_gone_soon_after_the_last_heartbeat(rig: Rig) -> None:
    a = rig.replica(A, b"a")
    await a.beat()
    (key,) = await rig.client.keys(f"{KEY}:*")
    assert 9_000 < await rig.client.pttl(key) <= 10_000
    await a.leave()
    assert await rig.client.keys(f"{KEY}:*") == []


async def test_what_is_no_report_is_empty_or_cut(rig: Rig) -> None:
    a, b = rig.replica(A, b"a"), rig.replica(B)
    await a.beat()
    await b.beat()
    (key,) = await rig.client.keys(f"{KEY}:*")
    await rig.client.set(key, b"x" * 100_000)
    assert await b.read_reports() == [b"x" * 16_384]
    await rig.client.delete(key)
    await rig.client.lpush(key, "a value of another type")
    assert await b.read_reports() == [b""]
