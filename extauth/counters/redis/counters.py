"""Counters in Redis or Valkey: one script call a batch."""

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from extauth.counters.redis.connection import RedisConnection
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.protocol import ReplyError
from extauth.counters.redis.registry import HeartbeatKeys
from extauth.counters.redis.scripts import Script, command
from extauth.counters.redis.server import REFUSALS
from extauth.counters.redis.server_clock import ServerClock
from extauth.counters.redis.takes import note_receipts, pack_most, pack_returns, pack_settle, pack_take, read_take
from extauth.counters.redis.watched_master import server_of
from extauth.errors import StoreError
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Owed, Return, TakeResult
from extauth.rules.model import Limit, Unit

_T = TypeVar("_T")

RIGHTS = "+evalsha +eval +time +get +set +del +strlen +append +getrange +setrange +pexpire"


class RedisCounters:
    """`limiter.counters.Counters` in Redis.

    A command that takes longer than `timeout_s`, or a connection that does, is a StoreError. The clock is Redis's own;
    `clock` (→ microseconds since the epoch) replaces it where time must be controlled. `prefix` begins the names of the
    keys that a probe writes, and of those that hold heartbeats. `evicts` is called once for each server and
    maxmemory-policy that throws counters away, with what is wrong.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float,
        clock: Callable[[], int] | None = None,
        *,
        prefix: str = "extauth",
        evicts: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._pipe = RedisConnection(server_of(url), timeout_s, self._greeted)
        self._evicts = evicts
        self._said = ""
        self._clock = clock
        self._asked = 0
        self._prefix = prefix
        self._server_clock = ServerClock()
        self._take_script, self._settle_script, self._return_script = map(Script, ("take", "settle", "give_back"))
        # Two keys, for one alone has no fault to find with a node of a cluster. Each is gone after a second.
        names = tuple(f"{prefix}:probe:{i}".encode("utf-8", "surrogateescape") for i in "ab")
        self._heartbeats = HeartbeatKeys(_OneServer(self), f"{prefix}:replicas".encode("utf-8", "surrogateescape"))
        self._probe = Group(CounterSet(names, (LimitCheck(Limit(2**32 - 1, Unit.SECOND), 1),) * 2), 1)

    def take(self, groups: Sequence[Group]) -> Coroutine[Any, Any, list[TakeResult]]:
        """One run of take.lua; all groups see one instant."""
        return self._take(groups)

    def take_parts(self, groups: Sequence[Group]) -> Coroutine[Any, Any, list[TakeResult]]:
        """As `take`, of groups that may be Parts of requests over several shards."""
        return self._take(groups, pack_most(groups))

    async def connect(self) -> None:
        """Return once a connection is set up, for which Redis must have answered; raises StoreError."""
        await self._pipe.connect()

    async def probe(self) -> None:
        """Count, on two keys of its own, as a batch would; raises StoreError, which names what is wrong.

        A PING is answered by many a server that cannot count: a replica, a Sentinel, a full one.
        """
        await self._take([self._probe])

    async def _take(self, groups: Sequence[Group], most: bytes = b"") -> list[TakeResult]:
        self._asked = (self._asked + 1) % 2**31
        number = self._asked
        head, body, size = pack_take(groups, number, b"" if self._clock is None else self.now(), most)
        asked_us = time.monotonic_ns() // 1000
        try:
            try:
                reply = await self._pipe.execute(head + self._take_script.evalsha + body)
            except ReplyError as error:
                reply = await self._load(error, self._take_script, head, body)
        except ReplyError as error:
            raise self._refused(error) from error
        try:
            takens = read_take(reply, groups, number, size)
            self._server_clock.note(reply[1], asked_us, time.monotonic_ns() // 1000)
        except (TypeError, ValueError, IndexError):
            raise self._pipe.drop_senseless() from None
        if most:
            note_receipts(groups, reply[1])
        return takens

    async def _run(self, script: Script, head: bytes, body: bytes, *, again: bool = True) -> Any:  # noqa: ANN401
        try:
            return await self._pipe.execute(head + script.evalsha + body, again=again)
        except ReplyError as error:
            return await self._load(error, script, head, body, again=again)

    async def _load(self, error: ReplyError, script: Script, head: bytes, body: bytes, *, again: bool = True) -> Any:  # noqa: ANN401
        """Run a script that the server does not know, as the error says: it was flushed, or this is another server."""
        if error.code != "NOSCRIPT":
            raise error
        return await self._pipe.execute(head + script.eval + body, again=again)

    def now_us(self) -> int:
        """The clock of Redis as its last reply said, and this process's since; before one, this machine's own."""
        if self._clock is not None:
            return self._clock()
        return self._server_clock.now_us()

    async def settle(self, owed: Sequence[Owed]) -> None:
        """One run of settle.lua, which is not sent again where its reply is lost."""
        try:
            await self._run(self._settle_script, *pack_settle(owed, self.now()), again=False)
        except ReplyError as error:
            raise self._refused(error) from error

    async def give_back(self, returns: Sequence[Return]) -> None:
        """One run of give_back.lua, which is not sent again where its reply is lost."""
        try:
            await self._run(self._return_script, *pack_returns(returns, self.now()), again=False)
        except ReplyError as error:
            raise self._refused(error) from error

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """As `counters.heartbeat.Registry` describes."""
        return await self._heartbeats.exchange_heartbeats(replica, address, rest, report)

    async def read_heartbeats(self) -> bytes:
        """The lines of all replicas; raises StoreError."""
        return await self._heartbeats.read_heartbeats()

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """As `counters.heartbeat.Registry` describes."""
        return await self._heartbeats.read_reports(replicas)

    def when_reconnected(self, reconnected: Callable[[], None]) -> None:
        """Have this called when it is connected to another server that has taken the place of the one before."""
        self._pipe.reconnected = reconnected

    def local_host(self) -> str | None:
        """The address of this host from which it is connected to Redis; None over a Unix socket, or while it is not."""
        return self._pipe.local_host()

    def _greeted(self, where: str, greeting: Greeting) -> None:
        reason = greeting.eviction(where)
        if reason and reason != self._said:
            self._evicts(reason)
        self._said = reason

    def _refused(self, error: ReplyError) -> StoreError:
        reply = str(error).partition("\n")[0][:200]
        what = REFUSALS.get(error.code, "refused")
        if error.code == "NOPERM":
            what += f" ({RIGHTS} ~{self._prefix}:*)"
        return StoreError("reply", f"Redis at {self._pipe.where} {what}: {reply}")

    async def forget(self, names: Sequence[bytes]) -> int:
        """Delete the counters by these names; returns how many there were."""
        deleted = await self.execute(command(b"DEL", *names))
        return deleted if isinstance(deleted, int) else 0

    async def aclose(self) -> None:
        """Close the connection."""
        await self._pipe.aclose()

    async def run_alone(self, script: Script, packed: tuple[bytes, bytes], kind: type[_T]) -> _T:
        """The reply of a script that is no take, which must be of this kind; raises StoreError."""
        try:
            reply = await self._run(script, *packed)
        except ReplyError as error:
            raise self._refused(error) from error
        if not isinstance(reply, kind):
            raise self._pipe.drop_senseless()
        return reply

    async def execute(self, packed: bytes) -> object:
        """The reply of a command; raises StoreError."""
        try:
            reply: object = await self._pipe.execute(packed)
        except ReplyError as error:
            raise self._refused(error) from error
        return reply

    def now(self) -> bytes:
        """The time for scripts: empty where the server's own clock counts."""
        return b"" if self._clock is None else b"%d" % self._clock()


class _OneServer:
    """`redis.registry.Runs` where there is one server for all keys."""

    def __init__(self, counters: RedisCounters) -> None:
        self._counters = counters
        self.now = counters.now

    async def run(self, _key: bytes, script: Script, packed: tuple[bytes, bytes], kind: type[_T]) -> _T:
        return await self._counters.run_alone(script, packed, kind)

    async def execute(self, _key: bytes, packed: bytes) -> object:
        return await self._counters.execute(packed)
