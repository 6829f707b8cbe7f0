"""What replicas of different versions share in one Redis: names of counters, states, and the script's arguments.

These are golden values, written down and not computed: a rolling upgrade runs two versions beside each other, and a
rollback starts the older one on what the newer one wrote. A name that changes is a fresh allowance for its caller; a
state that the other version misreads is a wrong count. So whoever has to change a value of this file

1. gives the new format a name of its own: another kind in the state's first byte, or a version in the counter's name,
   so that neither version reads what the other wrote;
2. leaves the cases of the old format here for as long as it is read;
3. says in CHANGELOG.md, under "Breaking", what happens to counters during the upgrade and after a rollback.

The script may change without that where arguments, reply and states stay: each version runs its own, by its hash.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import hiredis
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit
from redis.asyncio import Redis

from extauth.counters.redis.counters import RedisCounters
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Group, Mode
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support import takes
from tests.support.clock import NOON, Clock
from tests.support.service import planner_of
from tests.support.stores import Store

CONFIG = """
domain: api
descriptors:
  - {key: api_key, rate_limit: {unit: minute, requests_per_unit: 10}}
  - key: user
    descriptors: [{key: path, value: /é, rate_limit: {unit: hour, requests_per_unit: 10}}]
  - {key: host, value: a*, share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 10}}
  - key: several
    rate_limits:
      - {unit: minute, requests_per_unit: 10}
      - {unit: hour, requests_per_unit: 100}
      - {unit: hour, requests_per_unit: 200, algorithm: gcra}
"""
NINE = [("n", str(number)) for number in range(9)]
# (entries, whether the request brings its own limit, EXTAUTH_KEY_SECRET) → the counters' names with 16 shards
NAMES: list[tuple[list[tuple[str, str]], bool, str, tuple[bytes, ...]]] = [
    ([("api_key", "free-tier-key")], False, "", (b"extauth:{lp0}:3:api,7:api_key=VplfxeijoK0CDW86F4SsdQ",)),
    ([("api_key", "free-tier-key")], False, "a secret", (b"extauth:{lp0}:3:api,7:api_key=DNiLnHsAfoFngtZ0nc_UxA",)),
    ([("api_key", "")], False, "", (b"extauth:{5nw}:3:api,7:api_key=yuZpQdnvvUBOTYh1jqZ2cA",)),
    (
        [("user", "u"), ("path", "/é")],
        False,
        "",
        (b"extauth:{qbw}:3:api,4:user=E9ZQaTsZSCrXBh2jC0W_vA,4:path=cYGqA41QZXYdgowDKW28Lg",),
    ),
    ([("host", "abc")], False, "", (b"extauth:{la2}:3:api,4:host~Tr6WlMYdlPt_-MmxTDB7mg",)),
    (
        [("several", "s")],
        False,
        "",
        (
            b"extauth:{l0x}:3:api,7:several=u_d2n-pcjUGpBovW7bssEw:60",
            b"extauth:{l0x}:3:api,7:several=u_d2n-pcjUGpBovW7bssEw:3600",
            b"extauth:{l0x}:3:api,7:several=u_d2n-pcjUGpBovW7bssEw:3600.2",
        ),
    ),
    ([("other", "o")], True, "", (b"extauth:{bwc}:3:api,5:other=TMvjqA-BEto2FxeU24Hy1Q:override-60",)),
    (NINE, True, "", (b"extauth:{nv6}:3:api,#k06b9SC_nzrW3e7j8zd4MQ:override-60",)),
    ([("k" * 500, "long")], True, "", (b"extauth:{la2}:3:api,#QNVzgOwrcjcePsHn3Y3H_Q:override-60",)),
]

TAGS_BY_DEFAULT = ("1Z7", "1Z7", "54h", "lp0", "1Z7", "nrv", "fjl", "1K5", "1Z7")
"""Of the same with the default number of shards."""


@pytest.mark.parametrize("shards", [16, None])
@pytest.mark.parametrize("case", range(len(NAMES)))
def test_names(case: int, shards: int | None) -> None:
    entries, override, secret, names = NAMES[case]
    descriptor = RateLimitDescriptor(entries=[RateLimitDescriptorEntry(key=key, value=value) for key, value in entries])
    if override:
        descriptor.limit = RateLimitDescriptorRateLimitOverride(requests_per_unit=5, unit=RateLimitUnit.MINUTE)
    message = bytes(RateLimitRequest(domain="api", descriptors=[descriptor]))
    if shards is None:
        options = LimiterOptions(key_secret=secret)
        names = tuple([re.sub(rb"{\w+}", b"{%b}" % TAGS_BY_DEFAULT[case].encode(), name) for name in names])
    else:
        options = LimiterOptions(key_secret=secret, shards=shards)
    assert planner_of(CONFIG, options).plan(message).names == names


GCRA = Limit(7, Unit.MINUTE, Algorithm.GCRA, count_denied=False, burst=20)
WINDOW = Limit(10, Unit.HOUR)
SLIDING = Limit(10, Unit.MINUTE, Algorithm.SLIDING_WINDOW, count_denied=False)
LATER_US = 1_234_567
# limit → the state after 3 hits at NOON, the state after 2 more LATER_US later, and the hits that fit then
STATES = {
    GCRA: (
        "01 00c00892be281843 000000d0e6857841 0000000000001440 00000000389c8c41 0000000000001c40",
        "01 1c1a5492be281843 00000078e1d88341 0000000000001840 00000000389c8c41 0000000000001c40",
        15,
    ),
    WINDOW: ("02 005057ecc1281843 0000000000000840", "02 005057ecc1281843 0000000000001440", 5),
    SLIDING: (
        """03 00000000389c8c41 0000000000000000 0000000000000000 0000000000000840 00c00892be281843
           00c00892be281843 0000000000000840""",
        """03 00000000389c8c41 0000000000000000 0000000000000000 0000000000001440 1c1a5492be281843
           00c00892be281843 0000000000000840 1c1a5492be281843 0000000000001440""",
        5,
    ),
}


@pytest.fixture
async def client(any_store: Store) -> AsyncIterator[Redis]:
    async with Redis.from_url(any_store.url) as client:
        await client.delete("formats")
        yield client


@pytest.fixture
async def counters(any_store: Store) -> AsyncIterator[RedisCounters]:
    """Counters whose clock says NOON plus LATER_US."""
    counters = RedisCounters(any_store.url, 10, Clock(NOON + LATER_US))
    yield counters
    await counters.aclose()


async def hit(counters: RedisCounters, limit: Limit, calls: int) -> int:
    """The number of calls, of one hit each, that are admitted."""
    (taken,) = await counters.take([Group(takes.take((b"formats", limit, 1)), calls)])
    return taken.admitted


@pytest.mark.parametrize("limit", STATES, ids=lambda limit: limit.algorithm)
async def test_states_as_they_are_written(any_store: Store, client: Redis, limit: Limit) -> None:
    at_noon = RedisCounters(any_store.url, 10, Clock())
    assert await hit(at_noon, limit, 3) == 3
    await at_noon.aclose()
    assert await client.get("formats") == bytes.fromhex(STATES[limit][0])


@pytest.mark.parametrize("limit", STATES, ids=lambda limit: limit.algorithm)
async def test_states_that_another_version_wrote_are_read(client: Redis, counters: RedisCounters, limit: Limit) -> None:
    before, after, left = STATES[limit]
    await client.set("formats", bytes.fromhex(before), px=60_000)
    assert await hit(counters, limit, 2) == 2
    assert await client.get("formats") == bytes.fromhex(after)
    assert await hit(counters, limit, 99) == left


class Recorder:
    """Stands between RedisCounters and its server, and records what each sends, parsed."""

    def __init__(self, path: Path, store: Store) -> None:
        self.url = f"unix://{path}"
        self.commands: list[Any] = []
        self.replies: list[Any] = []
        self._path, self._store = path, store
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
        there, back = await asyncio.open_unix_connection(self._store.socket)
        await asyncio.gather(_record(reader, back, self.commands), _record(there, writer, self.replies))


async def _record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: list[Any]) -> None:
    parser = hiredis.Reader()
    while data := await reader.read(65_536):
        parser.feed(data)
        while (item := parser.gets()) is not False:
            record.append(item)
        writer.write(data)
    writer.close()


# Of the call below, as the head of take.lua describes them.
NOON_TEXT = b"1700049600000000"
LIMITS = """
    01 00000000389c8c41 0000000000001c40 0000000000003440
    06 0000008074d2ea41 0000000000002440 0000000000000000
    06 0000008074d2ea41 0000000000002240 0000000000000000
    03 00000000389c8c41 0000000000002440 000000000000f03f
"""
GROUPS = """
    04000000 03000000
        00000000 00 0000000000000840
        01000000 04 000000000000f03f
        02000000 00 000000000000f03f
    01000000 02000000
        03000000 01 0000000000000000
        00000000 03 000000000000f0bf
"""


async def test_what_the_script_is_given_and_replies(own_store: Store, short_path: Path) -> None:
    async with Recorder(short_path / "recorded", own_store) as recorder:
        counters = RedisCounters(recorder.url, 10, Clock())
        first = takes.take((b"a", GCRA, 3), (b"b", WINDOW, 1, Mode.SHADOW), (b"b", Limit(9, Unit.HOUR), 1))
        second = takes.take((b"c", SLIDING, 0, Mode.QUOTA), (b"a", GCRA, -1, Mode.REPORT_ONLY))
        await counters.take([Group(first, 4), Group(second, 1)])
        await counters.probe()
        await counters.aclose()
    taken, probed = [command[2:] for command in recorder.commands if command[0] == b"EVALSHA"]
    assert taken == [*b"5 a b b c a".split(), NOON_TEXT, bytes.fromhex(LIMITS), bytes.fromhex(GROUPS), b"1"]
    assert probed == [
        *b"2 extauth:probe:a extauth:probe:b".split(),
        NOON_TEXT,
        bytes.fromhex("06 0000000080842e41 0000e0ffffffef41 0000000000000000"),
        bytes.fromhex("01000000 02000000 00000000 00 000000000000f03f 00000000 00 000000000000f03f"),
        b"2",
    ]
    scripts = [reply for reply in recorder.replies if isinstance(reply, list) and isinstance(reply[0], int)]
    assert scripts == [
        [1, NOON, 4, 0, 0, 0, 3_600_000_000, 0, 3_600_000_000, 1, 0, 0, 0, 102_857_142, 6],
        [2, NOON, 1, 0, 1_000_000, 0, 1_000_000],
    ]
