"""Counters in Redis or Valkey: one script call a batch."""

import struct
import time
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, TypeVar

from extauth.counters.redis.connection import RedisConnection
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.protocol import ReplyError
from extauth.counters.redis.server import REFUSALS
from extauth.counters.redis.watched_master import server_of
from extauth.errors import StoreError
from extauth.limiter.algorithms import AnyAlgorithm
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Owed, TakeResult
from extauth.rules.model import Limit, Unit

_CALLS = struct.Struct("<I")
_ASK = struct.Struct("<IBd")
# Of each script, before its own file: each may use what those before it define.
_SHARED_FILES = ("state", "gcra", "fixed_window", "sliding_window", "limits")
_T = TypeVar("_T")

REPORTS_A_RUN = 8  # of up to 16 KiB: other calls wait for the reply
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
        self._offset_us = 0  # of the server's clock, from the monotonic one
        self._take_script, self._settle_script = _Script("take"), _Script("settle")
        self._replicas_script, self._reports_script = _Script("replicas", ("state",)), _Script("reports", ())
        # Two keys, for one alone has no fault to find with a node of a cluster. Each is gone after a second.
        names = tuple(f"{prefix}:probe:{i}".encode("utf-8", "surrogateescape") for i in "ab")
        self._replicas = f"{prefix}:replicas".encode("utf-8", "surrogateescape")
        self._probe = Group(CounterSet(names, (LimitCheck(Limit(2**32 - 1, Unit.SECOND), 1),) * 2), 1)

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """One run of take.lua; all groups see one instant."""
        try:
            return await self._take(groups)
        except ReplyError as error:
            raise self._refused(error) from error

    async def connect(self) -> None:
        """Return once a connection is set up, for which Redis must have answered; raises StoreError."""
        await self._pipe.connect()

    async def probe(self) -> None:
        """Count, on two keys of its own, as a batch would; raises StoreError, which names what is wrong.

        A PING is answered by many a server that cannot count: a replica, a Sentinel, a full one.
        """
        try:
            await self._take([self._probe])
        except ReplyError as error:
            raise self._refused(error) from error

    async def _take(self, groups: Sequence[Group]) -> list[TakeResult]:
        self._asked = (self._asked + 1) % 2**31
        number = self._asked
        head, body, size = self._pack(groups, number)
        asked_us = time.monotonic_ns() // 1000
        reply = await self._run(self._take_script, head, body)
        try:
            if reply[0] != number or len(reply) != size or not isinstance(sum(reply), int):
                raise ValueError  # noqa: TRY301 - as what else may be wrong with it raises
            # The reply's instant lies between these two: a slow reply must not set the clock back.
            earliest, latest = reply[1] - time.monotonic_ns() // 1000, reply[1] - asked_us
            self._offset_us = min(max(self._offset_us, earliest), latest)
            return _read(reply, groups)
        except (TypeError, ValueError, IndexError):
            # A reply that is none of this script's may be another command's: so may be all that follow.
            self._pipe.drop("a reply that makes no sense")
            raise StoreError("reply", "Redis replied what the script never says") from None

    async def _run(self, script: "_Script", head: bytes, body: bytes, *, again: bool = True) -> Any:  # noqa: ANN401
        try:
            return await self._pipe.execute(head + script.evalsha + body, again=again)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        # Flushed, or another server: this loads it too.
        return await self._pipe.execute(head + script.eval + body, again=again)

    def now_us(self) -> int:
        """The clock of Redis as its last reply said, and this process's since; before one, this machine's own."""
        if self._clock is not None:
            return self._clock()
        return time.monotonic_ns() // 1000 + (self._offset_us or _wall_offset_us())

    async def settle(self, owed: Sequence[Owed]) -> None:
        """One run of settle.lua, which is not sent again where its reply is lost."""
        limits: dict[AnyAlgorithm, int] = {}
        packed = [
            struct.pack(f"<II{len(numbers)}d", limits.setdefault(algorithm, len(limits)), len(numbers), *numbers)
            for _, algorithm, numbers in owed
        ]
        arguments = (self._now(), b"".join([algorithm.packed for algorithm in limits]), b"".join(packed))
        names = [name for name, _, _ in owed]
        body = b"".join((_bulk(b"%d" % len(names)), *map(_bulk, names), *map(_bulk, arguments)))
        try:
            await self._run(self._settle_script, b"*%d\r\n" % (6 + len(names)), body, again=False)
        except ReplyError as error:
            raise self._refused(error) from error

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """One run of replicas.lua: as `counters.heartbeat.Registry` describes."""
        keys = (self._replicas, self._report(replica))
        arguments = (self._now(), replica.encode(), address.encode(), rest.encode(), report)
        body = b"".join((_bulk(b"2"), *map(_bulk, keys), *map(_bulk, arguments)))
        try:
            reply = await self._run(self._replicas_script, b"*10\r\n", body)
        except ReplyError as error:
            raise self._refused(error) from error
        return self._expected(reply, bytes)

    async def read_heartbeats(self) -> bytes:
        """The lines of all replicas; raises StoreError."""
        try:
            reply = await self._pipe.execute(b"*2\r\n" + _bulk(b"GET") + _bulk(self._replicas))
        except ReplyError as error:
            raise self._refused(error) from error
        return self._expected(b"" if reply is None else reply, bytes)

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """Runs of reports.lua, of REPORTS_A_RUN reports each: as `counters.heartbeat.Registry` describes."""
        reports: list[bytes] = []
        for i in range(0, len(replicas), REPORTS_A_RUN):
            keys = list(map(self._report, replicas[i : i + REPORTS_A_RUN]))
            body = b"".join((_bulk(b"%d" % len(keys)), *map(_bulk, keys)))
            try:
                reply = await self._run(self._reports_script, b"*%d\r\n" % (3 + len(keys)), body)
            except ReplyError as error:
                raise self._refused(error) from error
            found = self._expected(reply, list)
            reports += [report if isinstance(report, bytes) else b"" for report in found[: len(keys)]]
        return reports

    def _report(self, replica: str) -> bytes:
        return self._replicas + b":" + replica.encode()

    def _expected(self, reply: object, kind: type[_T]) -> _T:
        if not isinstance(reply, kind):
            self._pipe.drop("a reply that makes no sense")
            raise StoreError("reply", "Redis replied what the script never says")
        return reply

    def when_reconnected(self, reconnected: Callable[[], None]) -> None:
        """Have this called when it is connected to another server that has taken the place of the one before."""
        self._pipe.reconnected = reconnected

    def local_host(self) -> str | None:
        """The address of this host from which it is connected to Redis; None over a Unix socket, or while it is not."""
        return self._pipe.local_host()

    def _greeted(self, where: str, greeting: Greeting) -> None:
        reason = ""
        if greeting.evicts:
            reason = f"Redis at {where} has the maxmemory-policy {greeting.policy}: where its memory is used up it "
            reason += "throws counters away, and their callers begin anew"
        if reason and reason != self._said:
            self._evicts(reason)
        self._said = reason

    def _refused(self, error: ReplyError) -> StoreError:
        reply = str(error).partition("\n")[0][:200]
        what = REFUSALS.get(error.code, "refused")
        if error.code == "NOPERM":
            what += f" ({RIGHTS} ~{self._prefix}:*)"
        return StoreError("reply", f"Redis at {self._pipe.where} {what}: {reply}")

    def _now(self) -> bytes:
        return b"" if self._clock is None else b"%d" % self._clock()

    async def forget(self, names: Sequence[bytes]) -> int:
        """Delete the counters by these names; returns how many there were."""
        try:
            return int(await self._pipe.execute(b"*%d\r\n" % (1 + len(names)) + b"".join(map(_bulk, (b"DEL", *names)))))
        except ReplyError as error:
            raise self._refused(error) from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._pipe.aclose()

    def _pack(self, groups: Sequence[Group], number: int) -> tuple[bytes, bytes, int]:
        """The command: its array header, and what follows EVALSHA and the script (see lua/take.lua for the arguments).

        And how many numbers the reply has.
        """
        keys: list[bytes] = []
        limits: dict[AnyAlgorithm, int] = {}
        asked: dict[int, tuple[bytes, int]] = {}  # by identity: many takes ask the same
        packed: list[bytes] = []
        size = 2
        for take, calls in groups:
            keys += take.names
            known = asked.get(id(take.checks))
            if known is None:
                checks = _CALLS.pack(len(take.checks)) + b"".join(
                    _ASK.pack(limits.setdefault(check.algorithm, len(limits)), check.mode, check.cost)
                    for check in take.checks
                )
                known = checks, 1 + sum(check.algorithm.numbers for check in take.checks)
                asked[id(take.checks)] = known
            packed += (_CALLS.pack(calls), known[0])
            size += known[1]
        arguments = (
            self._now(),
            b"".join([algorithm.packed for algorithm in limits]),
            b"".join(packed),
            b"%d" % number,
        )
        body = b"".join((_bulk(b"%d" % len(keys)), *map(_bulk, keys), *map(_bulk, arguments)))
        return b"*%d\r\n" % (7 + len(keys)), body, size


def _read(reply: Sequence[int], groups: Sequence[Group]) -> list[TakeResult]:
    """A reply of the right size; raises ValueError where it admits what was not asked for."""
    takens = []
    at = 2
    for take, calls in groups:
        admitted = reply[at]
        at += 1
        if not 0 <= admitted <= calls:
            raise ValueError
        levels = []
        for check in take.checks:
            algorithm = check.algorithm
            end = at + algorithm.numbers
            levels.append(algorithm.read(*reply[at:end]))
            at = end
        takens.append(TakeResult(admitted, tuple(levels)))
    return takens


class _Script:
    """A script's commands, without the array header."""

    def __init__(self, name: str, shared: Sequence[str] = _SHARED_FILES) -> None:
        folder = files("extauth.counters.redis") / "lua"
        text = b"\n".join((folder / f"{each}.lua").read_bytes() for each in (*shared, name))
        self.evalsha = _bulk(b"EVALSHA") + _bulk(sha1(text, usedforsecurity=False).hexdigest().encode())
        self.eval = _bulk(b"EVAL") + _bulk(text)


def _wall_offset_us() -> int:
    return (time.time_ns() - time.monotonic_ns()) // 1000


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
