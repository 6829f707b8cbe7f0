"""Where the master is, as sentinels say that do not all tell the truth, and how it is left at a switch."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from extauth.counters.redis import sentinel as sentinel_module
from extauth.counters.redis.counters import RedisCounters
from extauth.counters.redis.watched_master import BELIEVED_S, CHECK_AFTER_S
from extauth.errors import StoreError
from scripts.stack import free_ports
from tests.counters.redis_take import LIMITS, take
from tests.support.fake_sentinel import FakeSentinel, Where
from tests.support.stores import Store
from tests.support.wait import until_async


class Master(NamedTuple):
    """A server that counts, and where."""

    store: Store
    at: Where

    async def taken(self) -> int:
        """How many batches it has counted."""
        async with Redis.from_url(self.store.url) as client:
            stats = await client.info("commandstats")
            return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


@pytest.fixture
def masters(short_path: Path) -> Iterator[tuple[Master, Master]]:
    started = []
    for name in "ab":
        (short_path / name).mkdir()
        (port,) = free_ports(1)
        store = Store("valkey", short_path / name, "--port", str(port), "--bind", "127.0.0.1").start()
        started.append(Master(store, ("127.0.0.1", port)))
    yield started[0], started[1]
    for master in started:
        master.store.stop()


class Trio:
    """Three sentinels, all of which have `master` at first, and counters that they lead there."""

    def __init__(self, sentinels: list[FakeSentinel]) -> None:
        self.sentinels = sentinels
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        self.counters = RedisCounters(f"redis+sentinel://{hosts}/m", 5)

    async def counts(self) -> bool:
        """Whether a call is counted."""
        try:
            return await take(self.counters, LIMITS[0], f"c{next(_names)}") == 1
        except StoreError:
            return False

    async def until_it_listens(self) -> None:
        """Wait until it counts, and hears all that the sentinels announce."""
        await until_async(self.counts)
        await until_async(lambda: all(each.subscribers for each in self.sentinels))


_names = itertools.count()


@pytest.fixture
async def trio(masters: tuple[Master, Master]) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        started = Trio([await stack.enter_async_context(FakeSentinel(masters[0].at)) for _ in range(3)])
        stack.push_async_callback(started.counters.aclose)
        yield started


A, B, UNKNOWN, SILENT, GONE = "A", "B", "unknown", "silent", "gone"


async def say(trio: Trio, masters: tuple[Master, Master], what: list[str]) -> None:
    """Have each sentinel say this."""
    for sentinel, word in zip(trio.sentinels, what, strict=True):
        sentinel.silent = word == SILENT
        sentinel.master = {A: masters[0].at, B: masters[1].at}.get(word)
        if word == GONE:
            await sentinel.stop()


@pytest.mark.parametrize("said", [[A, A, A], [B, A, A], [A, A, B], [UNKNOWN, A, A], [A, SILENT, A], [GONE, A, GONE]])
async def test_what_most_of_the_sentinels_that_answer_say_is_believed(
    trio: Trio, masters: tuple[Master, Master], said: list[str]
) -> None:
    await say(trio, masters, said)
    await until_async(trio.counts)
    assert [await each.taken() > 0 for each in masters] == [True, False]


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ([A, B, UNKNOWN], "reply", r"the sentinels do not agree where the master 'm' is: .* says 127.*, .* says none"),
        ([A, B, GONE], "reply", "the sentinels do not agree where the master 'm' is: "),
        ([A, UNKNOWN, SILENT], "reply", "the sentinels do not agree where the master 'm' is: "),
        ([UNKNOWN] * 3, "reply", r"the sentinels know no master 'm' \(127.*\): EXTAUTH_REDIS_URL must name it as `sen"),
        ([UNKNOWN, GONE, GONE], "reply", "the sentinels know no master 'm' "),
        ([GONE] * 3, "connection", "no sentinel says where the master 'm' is: no connection to the sentinel.*; no con"),
        (
            [SILENT, GONE, GONE],
            "connection",
            "no sentinel says where .* is: .*no answer from the sentinel at 127.*within",
        ),
    ],
)
async def test_without_a_majority_the_store_is_away_and_the_reason_is_named(
    trio: Trio, masters: tuple[Master, Master], said: list[str], kind: str, message: str
) -> None:
    await say(trio, masters, said)
    with pytest.raises(StoreError, match=message) as raised:
        await take(trio.counters, LIMITS[0])
    assert raised.value.kind == kind
    assert not raised.value.sent
    assert [await each.taken() for each in masters] == [0, 0]


async def test_a_replica_is_refused_and_looked_up_again(trio: Trio, masters: tuple[Master, Master]) -> None:
    async with Redis.from_url(masters[0].store.url) as client:
        await client.execute_command("REPLICAOF", *masters[1].at)  # type: ignore[no-untyped-call]
        with pytest.raises(StoreError, match="is still a replica, though most sentinels call it the master 'm'"):
            await take(trio.counters, LIMITS[0])
        await say(trio, masters, [B] * 3)
        await until_async(trio.counts)
    assert [await each.taken() > 0 for each in masters] == [False, True]


async def test_after_a_switch_was_announced_nothing_is_counted_at_the_old_master_which_still_answers(
    trio: Trio, masters: tuple[Master, Master]
) -> None:
    """The other sentinels have yet to hear of the switch, and are more."""
    a, b = masters
    connected = asyncio.Event()
    trio.counters.when_reconnected(connected.set)
    await trio.until_it_listens()
    calls: list[asyncio.Task[bool]] = []
    trio.sentinels[1].master = b.at
    before = await a.taken()
    trio.sentinels[1].announce(a.at, b.at)
    await until_async(lambda: not_connected(a))
    heard = await a.taken()
    assert heard <= before + 1
    for _ in range(20):
        calls.append(asyncio.create_task(trio.counts()))
        await asyncio.sleep(0.02)
    assert (await a.taken(), await b.taken()) == (heard, 0)
    assert not connected.is_set()
    trio.sentinels[2].master = b.at  # a majority, and no call asks for a connection
    async with asyncio.timeout(1):
        await connected.wait()
    await asyncio.gather(*calls)
    await until_async(trio.counts)
    assert await a.taken() == heard
    assert await b.taken() > 0


async def test_what_a_sentinel_said_before_it_announced_a_switch_is_not_believed(
    trio: Trio, masters: tuple[Master, Master]
) -> None:
    a, b = masters
    await trio.until_it_listens()
    announcer, late, other = trio.sentinels
    now = asyncio.get_running_loop().time
    await until_async(lambda: now() - late.asked_at > 4 * CHECK_AFTER_S)  # no look-up is under way, or about to be
    late.silent, other.master = True, b.at
    asked = [each.questions for each in trio.sentinels]
    before = await a.taken()
    async with Redis.from_url(a.store.url) as client:
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
    call = asyncio.create_task(trio.counts())
    await until_async(lambda: all(each.questions > n for each, n in zip(trio.sentinels, asked, strict=True)))
    announcer.master = b.at
    announcer.announce(a.at, b.at)
    await asyncio.sleep(0.02)  # at the latest now it is heard
    late.speak()
    await call
    await until_async(trio.counts)
    assert await a.taken() == before
    assert await b.taken() > 0


async def not_connected(master: Master) -> bool:
    """Whether nobody but this client is connected to it."""
    async with Redis.from_url(master.store.url) as client:
        return int((await client.info("clients"))["connected_clients"]) == 1


async def test_a_sentinel_that_announces_what_the_others_do_not_say_is_believed_for_a_while_and_not_again(
    trio: Trio, masters: tuple[Master, Master]
) -> None:
    a, b = masters
    await trio.until_it_listens()
    liar = trio.sentinels[0]
    liar.master = b.at
    liar.announce(a.at, b.at)
    await until_async(lambda: not_connected(a))
    assert await until_async(trio.counts) == pytest.approx(BELIEVED_S, abs=1.5)
    assert await b.taken() == 0
    questions = liar.questions
    liar.announce(a.at, b.at)
    await until_async(lambda: liar.questions > questions)
    for _ in range(20):
        assert await trio.counts()
        await asyncio.sleep(0.01)
    assert await b.taken() == 0


@pytest.mark.parametrize("old", [A, B], ids=["the master", "another"])
async def test_a_sentinel_that_announces_what_it_does_not_say_itself_changes_nothing(
    trio: Trio, masters: tuple[Master, Master], old: str
) -> None:
    a, b = masters
    await trio.until_it_listens()
    trio.sentinels[0].announce((a if old == A else b).at, ("127.0.0.1", 1))
    for _ in range(50):
        with suppress(StoreError):
            await take(trio.counters, LIMITS[0])
        await asyncio.sleep(0.005)
    assert await until_async(trio.counts) < 1
    assert await b.taken() == 0


async def test_a_switch_that_nobody_announced_is_seen_when_a_subscription_begins_again(
    trio: Trio, masters: tuple[Master, Master]
) -> None:
    a, b = masters
    await trio.until_it_listens()
    await say(trio, masters, [B] * 3)
    assert await trio.counts()
    assert await b.taken() == 0  # it has not heard of it yet
    await trio.sentinels[2].stop()
    await trio.sentinels[2].start()
    await until_async(lambda: not_connected(a))
    await until_async(trio.counts)
    assert await b.taken() > 0


async def test_a_subscription_that_is_lost_is_made_again_with_pauses(
    trio: Trio, masters: tuple[Master, Master]
) -> None:
    await trio.until_it_listens()
    lost = trio.sentinels[0]
    await lost.stop()
    lost.hanging_up, lost.connections = True, 0
    await lost.start()
    began = asyncio.get_running_loop().time()
    await until_async(lambda: lost.connections >= 4)
    assert asyncio.get_running_loop().time() - began > 0.5  # pauses of 0.1, 0.2, 0.4 and 0.8 s, less up to a half
    lost.hanging_up = False
    await until_async(lambda: lost.subscribers == 1)
    await say(trio, masters, [B] * 3)
    lost.announce(masters[0].at, masters[1].at)
    await until_async(lambda: not_connected(masters[0]))
    await until_async(trio.counts)
    assert await masters[1].taken() > 0


async def test_a_sentinel_that_falls_silent_is_subscribed_to_again(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentinel_module, "SILENCE_S", 0.1)
    await trio.until_it_listens()
    deaf, well = trio.sentinels[:2]
    before = well.connections, deaf.connections
    deaf.deaf = True
    await until_async(lambda: deaf.connections > before[1])
    await until_async(lambda: well.pings > 5)
    assert well.connections == before[0]


async def test_a_server_that_counts_is_no_sentinel(masters: tuple[Master, Master]) -> None:
    counters = RedisCounters(f"redis+sentinel://127.0.0.1:{masters[0].at[1]}/m", 5)
    with pytest.raises(StoreError, match=r"the sentinel at 127.* is none: EXTAUTH_REDIS_URL has the addresses of sent"):
        await take(counters, LIMITS[0])
    await counters.aclose()


async def test_nothing_is_left_behind(trio: Trio) -> None:
    before = asyncio.all_tasks()
    await trio.until_it_listens()
    await trio.counters.aclose()
    await until_async(lambda: not any(each.subscribers for each in trio.sentinels))
    left = {task for task in asyncio.all_tasks() - before if "_serve" not in repr(task)}
    assert left == set()
