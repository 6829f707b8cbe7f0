"""The protocol of an open connection to Redis: commands out, replies in, and a clock for those that wait."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import AbstractConnection

from extauth.counters.waiting import in_steps

# Redis 6 wraps what a command inside a script was refused with: `ERR Error running script (…): … -READONLY …`.
_WRAPPED = re.compile(r": -([A-Z]+) ")
# All versions answer so, in other words each, where a script may not run one of its commands.
_NO_RIGHT = re.compile(r"The user executing the script can't|ACL failure in script")


class ReplyError(Exception):
    """An error reply, such as `NOSCRIPT …`."""

    @property
    def code(self) -> str:
        """Its first word; that of the command that failed where it was one inside a script. `ERR` says nothing."""
        text = str(self)
        code = text.partition(" ")[0]
        if code == "ERR":
            if _NO_RIGHT.search(text):
                return "NOPERM"
            if wrapped := _WRAPPED.search(text):
                return wrapped[1]
        return code


class LostError(Exception):
    """The connection ended before the reply came."""


class TooSlowError(Exception):
    """The connection's clock ran out."""


class _Waiting(Protocol):
    """What waits for a reply."""

    def done(self) -> bool: ...

    def set_result(self, reply: Any, /) -> None: ...  # noqa: ANN401

    def set_exception(self, error: Exception, /) -> None: ...


class _Replies:
    """The replies to several commands, errors among them, for whoever waits for the last of them."""

    __slots__ = ("_future", "_replies", "_size")

    def __init__(self, future: "asyncio.Future[list[Any]]", size: int) -> None:
        self._future = future
        self._size = size
        self._replies: list[Any] = []

    def done(self) -> bool:
        return self._future.done()

    def set_result(self, reply: Any) -> None:  # noqa: ANN401
        self._replies.append(reply)
        if len(self._replies) == self._size:
            self._future.set_result(self._replies)

    set_exception = set_result


class RedisProtocol(asyncio.Protocol):
    """The protocol of one open connection."""

    def __init__(
        self, connection: AbstractConnection, timeout_s: float, lost: Callable[["RedisProtocol"], None]
    ) -> None:
        # redis-py hands its transport out in no other way. Whoever holds the writer closes it when collected: keep it
        # here, and take it from there.
        reader = cast("asyncio.StreamReader", connection._reader)  # noqa: SLF001
        writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        self._transport = cast("asyncio.Transport", writer.transport)
        if reader.at_eof() or self._transport.is_closing():  # nobody would tell of it any more
            raise LostError("closed by Redis")
        self._writer = writer
        connection._reader = connection._writer = None  # noqa: SLF001
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self._lost = lost
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._reason = "closed by Redis"
        self._steps, self._step_s = in_steps(timeout_s)
        self._step = 0  # of the clock, which runs while something is waited for
        self._clock: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[_Waiting, int]] = deque()  # with the step at which it is too late

    def send(self, command: bytes) -> "asyncio.Future[Any]":
        """The reply to come; it fails with ReplyError, LostError or TooSlowError."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(LostError(self._reason))
            return future
        # A clock that runs already is somewhere in a step.
        self._waiting.append((future, self._step + self._steps + (self._clock is not None)))
        self._transport.write(command)
        if self._clock is None:
            self._clock = self._loop.call_later(self._step_s, self._tick)
        return future

    def send_all(self, commands: Sequence[bytes]) -> "asyncio.Future[list[Any]]":
        """The replies to come to several commands, one or more, in one write; each may be one of those errors."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_result([LostError(self._reason)] * len(commands))
            return future
        replies = _Replies(future, len(commands))
        self._waiting.extend([(replies, self._step + self._steps + (self._clock is not None))] * len(commands))
        self._transport.write(b"".join(commands))
        if self._clock is None:
            self._clock = self._loop.call_later(self._step_s, self._tick)
        return future

    def _tick(self) -> None:
        """Watch over the oldest command: one clock for all of them costs less than one each."""
        self._step += 1
        self._clock = None
        if not self._waiting:
            return
        too_late = self._waiting[0][1]
        if self._step < too_late:
            self._clock = self._loop.call_later(self._step_s, self._tick)
            return
        # Replies come in order: what holds up this one holds up all, and none of them is worth sending again.
        # And a dead peer shows in no other way.
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(TooSlowError("it was too slow"))
        self._waiting.clear()
        self.abort("it was too slow")

    def local_host(self) -> str | None:
        """This end's IP address; None over a Unix socket."""
        name = self._transport.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else None

    def abort(self, reason: str) -> None:
        """End the connection; what waits for a reply fails with `reason`."""
        self._reason = reason
        self._lost(self)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol.data_received."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    self.abort("a reply that nobody asked for")
                    return
                future, _ = self._waiting.popleft()
                if future.done():  # its caller gave up
                    continue
                if isinstance(reply, ReplyError):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (hiredis.HiredisError, UnicodeError) as error:
            self.abort(f"not the protocol of Redis: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol.connection_lost."""
        self._lost(self)
        if self._clock is not None:
            self._clock.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(LostError(str(exc) if exc else self._reason))
        self._waiting.clear()
