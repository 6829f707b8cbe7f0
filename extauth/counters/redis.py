"""Counters in Redis or Valkey: one script call a batch."""

import struct
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from itertools import islice

from extauth.counters.pipe import Pipe, ReplyError
from extauth.errors import StoreError
from extauth.limiter.counters import Group, Level, Taken
from extauth.rules.model import Algorithm, Limit

_LIMIT = struct.Struct("<Bddd")
_CALLS = struct.Struct("<I")
_ASK = struct.Struct("<IBd")
_NUMBERS = {Algorithm.GCRA: 2, Algorithm.FIXED_WINDOW: 2, Algorithm.SLIDING_WINDOW: 3}  # in a reply, a counter
_COUNT_DENIED = 4


class RedisCounters:
    """`limiter.counters.Counters` in Redis.

    A call that takes longer than `timeout_s`, connecting included, is a StoreError. The clock is Redis's own; `clock`
    (→ microseconds since the epoch) replaces it where time must be controlled.
    """

    def __init__(self, url: str, timeout_s: float, clock: Callable[[], int] | None = None) -> None:
        self._pipe = Pipe(url, timeout_s)
        self._clock = clock
        self._asked = 0
        script = files("extauth.counters").joinpath("lua/take.lua").read_bytes()
        self._evalsha = _bulk(b"EVALSHA") + _bulk(sha1(script, usedforsecurity=False).hexdigest().encode())
        self._eval = _bulk(b"EVAL") + _bulk(script)

    async def take(self, groups: Sequence[Group]) -> list[Taken]:
        """One run of take.lua; all groups see one instant."""
        self._asked = (self._asked + 1) % 2**31
        number = self._asked
        head, body, size, pairs = self._pack(groups, number)
        deadline = self._pipe.deadline()
        try:
            try:
                reply = await self._pipe.call(head + self._evalsha + body, deadline)
            except ReplyError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
                # Flushed, or another server: this loads it too.
                reply = await self._pipe.call(head + self._eval + body, deadline)
        except ReplyError as error:
            raise StoreError("reply", f"Redis refused: {error}") from error
        try:
            if reply[0] != number or len(reply) != size or not isinstance(sum(reply), int):
                raise ValueError  # noqa: TRY301 - as what else may be wrong with it raises
            return _read(reply, groups, pairs=pairs)
        except (TypeError, ValueError, IndexError):
            # A reply that is none of this script's may be another command's: so may be all that follow.
            self._pipe.drop("a reply that makes no sense")
            raise StoreError("reply", "Redis replied what the script never says") from None

    async def ping(self) -> None:
        """Ask Redis to answer."""
        try:
            await self._pipe.call(b"*1\r\n" + _bulk(b"PING"))
        except ReplyError as error:
            raise StoreError("reply", f"Redis refused: {error}") from error

    async def forget(self, names: Sequence[bytes]) -> int:
        """Delete the counters by these names; returns how many there were."""
        try:
            return int(await self._pipe.call(b"*%d\r\n" % (1 + len(names)) + b"".join(map(_bulk, (b"DEL", *names)))))
        except ReplyError as error:
            raise StoreError("reply", f"Redis refused: {error}") from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._pipe.aclose()

    def _pack(self, groups: Sequence[Group], number: int) -> tuple[bytes, bytes, int, bool]:
        """The command: its array header, and what follows EVALSHA and the script (see lua/take.lua for the arguments).

        And of the reply: how many numbers it has, and whether that is two a counter.
        """
        keys: list[bytes] = []
        limits: dict[Limit, int] = {}
        asked: dict[int, tuple[bytes, int]] = {}  # by identity: many takes ask the same
        packed: list[bytes] = []
        size = 1
        for take, calls in groups:
            keys += take.names
            known = asked.get(id(take.asks))
            if known is None:
                asks = _CALLS.pack(len(take.asks)) + b"".join(
                    _ASK.pack(limits.setdefault(limit, len(limits)), mode, cost) for limit, cost, mode in take.asks
                )
                known = asks, 1 + sum(_NUMBERS[ask.limit.algorithm] for ask in take.asks)
                asked[id(take.asks)] = known
            packed += (_CALLS.pack(calls), known[0])
            size += known[1]
        now = b"" if self._clock is None else b"%d" % self._clock()
        arguments = (now, b"".join(map(_pack_limit, limits)), b"".join(packed), b"%d" % number)
        body = b"".join((_bulk(b"%d" % len(keys)), *map(_bulk, keys), *map(_bulk, arguments)))
        return b"*%d\r\n" % (7 + len(keys)), body, size, size == 1 + len(groups) + 2 * len(keys)


def _read(reply: Sequence[int], groups: Sequence[Group], *, pairs: bool) -> list[Taken]:
    """A reply of the right size; raises ValueError where it admits what was not asked for."""
    numbers = iter(reply)
    next(numbers)
    takens = []
    for take, calls in groups:
        if pairs:
            admitted, *flat = islice(numbers, 1 + 2 * len(take.names))
            levels = tuple(map(Level, flat[::2], flat[1::2]))
        else:
            admitted = next(numbers)
            levels = tuple(Level(*islice(numbers, _NUMBERS[ask.limit.algorithm])) for ask in take.asks)
        if not 0 <= admitted <= calls:
            raise ValueError
        takens.append(Taken(admitted, levels))
    return takens


def _pack_limit(limit: Limit) -> bytes:
    denied = _COUNT_DENIED if limit.count_denied else 0
    if limit.algorithm is Algorithm.GCRA:
        return _LIMIT.pack(1 + denied, *limit.emission_interval, limit.capacity)
    if limit.algorithm is Algorithm.SLIDING_WINDOW:
        return _LIMIT.pack(3 + denied, limit.period_us, limit.requests_per_unit, limit.quantum_us)
    return _LIMIT.pack(2 + denied, limit.period_us, limit.requests_per_unit, 0)


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
