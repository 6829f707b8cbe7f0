"""One pipelined connection to Redis: redis-py opens it, this keeps it.

redis-py does what happens once a connection: resolving, TLS, authentication, SELECT. Then its transport is handed to a
bare protocol, which writes packed commands and reads with hiredis: redis-py's own client would cost several times the
CPU of a whole batch of decisions.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from extauth.counters.redis.endpoint import FILE_OPTIONS, fault
from extauth.errors import SettingsError, StoreError

CONNECT_TIMEOUT_S = 1  # one attempt that hangs must not hold up the next, which may do
NOT_LET_IN = "refuses the user or the password that EXTAUTH_REDIS_URL has, or lacks"
ATTEMPT_EVERY_S = 0.05  # at most: a server that refuses at once is not to be stormed

# Of a server that is not, or not now, the one to ask: by now another may answer at the same address.
_ELSEWHERE = frozenset({"READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "NOREPLICAS"})
# Redis 6 wraps what a command inside a script was refused with: `ERR Error running script (…): … -READONLY …`.
_WRAPPED = re.compile(r": -([A-Z]+) ")
# All versions answer so, in other words each, where a script may not run one of its commands.
_NO_RIGHT = re.compile(r"The user executing the script can't|ACL failure in script")

_STEPS = 10
_SHORTEST_STEP_S = 0.002  # uvloop runs a timer of less than half a millisecond before it looks for I/O


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


class _LostError(Exception):
    """The connection ended before the reply came."""


class _TooSlowError(Exception):
    """The connection's clock ran out."""


class RedisConnection:
    """Sends commands in order over one connection, made when first needed and again after it was lost.

    Its clock, `timeout_s`, runs for each command from when it was sent, and for the wait for a new connection. It
    counts in steps while the loop runs: a time for which this process was stopped is one step, however long, and is
    followed by a look at what came in meanwhile.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._pool = _pool(url)
        self._timeout_s = timeout_s
        self._link: _Protocol | None = None
        self._opening: asyncio.Task[_Protocol] | None = None
        self._failure: tuple[str, str] | None = None  # of the last attempt to connect: kind and text of its StoreError
        self._next_attempt = 0.0  # on the loop's clock
        options = self._pool.connection_kwargs
        self.where = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    async def execute(self, command: bytes) -> Any:  # noqa: ANN401 - whatever Redis replies
        """The reply to a packed command; raises ReplyError for an error reply, StoreError where there is none in time.

        A command whose connection dies under it is sent once more, and Redis may then run it twice. So is one that the
        server refused because another has taken its place, unless the connection is as new as one may be.
        """
        try:
            link = self._link or await self._connect()
            try:
                return await link.send(command)
            except _LostError:
                self._lost(link)
            except ReplyError as error:
                if error.code not in _ELSEWHERE or not self._give_up(link):
                    raise
            return await (self._link or await self._connect()).send(command)
        except _TooSlowError as error:
            raise StoreError("timeout", f"no answer from Redis at {self.where} within {self._timeout_s} s") from error
        except _LostError as error:
            raise self._no_connection(error) from error

    async def aclose(self) -> None:
        """Close; commands under way fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.drop("closed")
        await self._pool.disconnect()

    def drop(self, reason: str) -> None:
        """Give the connection up: what comes over it can no longer be trusted, or waited for."""
        if self._link is not None:
            self._link.abort(reason)

    def _give_up(self, link: "_Protocol") -> bool:
        """Whether another connection than this one can be tried now."""
        if self._link is link:
            if asyncio.get_running_loop().time() < self._next_attempt:
                return False
            self.drop("another may have taken its place")
        return True

    async def _connect(self) -> "_Protocol":
        """One attempt at a time, which all who wait share, and which goes on when one of them gives up."""
        if self._opening is None:
            if self._failure is not None and asyncio.get_running_loop().time() < self._next_attempt:
                raise StoreError(*self._failure)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        if not await _within(opening, self._timeout_s):
            raise _TooSlowError("it was too slow")
        if opening.cancelled():
            raise _LostError("closed")
        return opening.result()

    async def _open(self) -> "_Protocol":
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_attempt - loop.time())
        self._next_attempt = loop.time() + ATTEMPT_EVERY_S
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connecting = asyncio.create_task(connection.connect())  # type: ignore[no-untyped-call]
        try:
            if not await _within(connecting, CONNECT_TIMEOUT_S):
                raise _LostError(f"not within {CONNECT_TIMEOUT_S} s")  # noqa: TRY301 - said below, as the others
            connecting.result()
            return _Protocol(connection, self._timeout_s, self._lost)
        except Exception as error:
            # Whatever it is. Where the peer closes meanwhile, uvloop's transport raises RuntimeError, for one.
            raise self._no_connection(error) from error
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await connection.disconnect(nowait=True)  # nothing, once the link has it

    def _opened(self, opening: "asyncio.Task[_Protocol]") -> None:
        self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()
        self._failure = (error.kind, str(error)) if isinstance(error, StoreError) else None
        if error is None:
            self._link = opening.result()

    def _no_connection(self, error: Exception) -> StoreError:
        reason = str(error)
        # redis-py wraps what it meets on a Unix socket once more.
        if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
            return StoreError("reply", f"Redis at {self.where} {NOT_LET_IN}: {reason}")
        at = "" if self.where in reason else f" at {self.where}"
        return StoreError("connection", f"no connection to Redis{at}: {reason}")

    def _lost(self, link: "_Protocol") -> None:
        if self._link is link:
            self._link = None


async def _within(task: "asyncio.Task[Any]", duration_s: float) -> bool:
    """Wait until the task is done, for so long, in steps; returns whether it is."""
    steps, step_s = _in_steps(duration_s)
    for _ in range(steps):
        await asyncio.wait((task,), timeout=step_s)
        if task.done():
            return True
    return False


def _in_steps(duration_s: float) -> tuple[int, float]:
    """How many steps, at least two, of how many seconds.

    A timer that is due when this process goes on after a stop may run before what came in meanwhile is read, on asyncio
    as on uvloop. One that is set by then runs after. So no clock may end at its first step.
    """
    step_s = max(duration_s / _STEPS, _SHORTEST_STEP_S)
    return max(math.ceil(duration_s / step_s), 2), step_s


def _pool(url: str) -> ConnectionPool:
    """Where connections come from; raises SettingsError.

    No value is shown, nor redis-py's error: either may hold the password.
    """
    if wrong := fault(url):
        raise SettingsError(f"EXTAUTH_REDIS_URL: {wrong}")
    options = parse_qs(urlsplit(url).query)
    for name in FILE_OPTIONS:
        for path in options.get(name, ()):
            try:
                Path(path).read_bytes()
            except OSError as error:
                message = f"EXTAUTH_REDIS_URL: the file of the option {name} cannot be read: {error.strerror}"
                raise SettingsError(message) from error
    try:
        return _try_pool(url)
    except (TypeError, ValueError, RedisError, OSError):  # ssl.SSLError is an OSError
        names = _refused(url, options) or list(options)
        what = f"option {names[0]} has" if len(names) == 1 else f"options {', '.join(names)} have"
        raise SettingsError(f"EXTAUTH_REDIS_URL: the {what} no value that will do") from None


def _try_pool(url: str) -> ConnectionPool:
    pool = ConnectionPool.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=None,  # its timers would fire before what came in meanwhile is read: see _within
        socket_timeout=None,
    )
    connection = pool.make_connection()  # type: ignore[no-untyped-call]  # opens nothing, but takes all options
    if isinstance(connection, SSLConnection):
        connection.ssl_context.get()
    return pool


def _refused(url: str, options: dict[str, list[str]]) -> list[str]:
    """Which options will not do, even without the others; a certificate, its key and that one's password are one."""
    pair = [name for name in options if name in {"ssl_certfile", "ssl_keyfile", "ssl_password"}]
    tried = [[name] for name in options if name not in pair]
    for names in [*tried, pair] if pair else tried:
        query = urlencode([(name, options[name][0]) for name in names])
        try:
            _try_pool(urlunsplit((urlsplit(url).scheme, "h", "/s", query, "")))
        except (TypeError, ValueError, RedisError, OSError):
            return names
    return []


class _Protocol(asyncio.Protocol):
    """The protocol of one open connection."""

    def __init__(self, connection: AbstractConnection, timeout_s: float, lost: Callable[["_Protocol"], None]) -> None:
        # redis-py hands its transport out in no other way. Whoever holds the writer closes it when collected: keep it
        # here, and take it from there.
        reader = cast("asyncio.StreamReader", connection._reader)  # noqa: SLF001
        writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        self._transport = cast("asyncio.Transport", writer.transport)
        if reader.at_eof() or self._transport.is_closing():  # nobody would tell of it any more
            raise _LostError("closed by Redis")
        self._writer = writer
        connection._reader = connection._writer = None  # noqa: SLF001
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self._lost = lost
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._reason = "closed by Redis"
        self._steps, self._step_s = _in_steps(timeout_s)
        self._step = 0  # of the clock, which runs while something is waited for
        self._clock: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], int]] = deque()  # with the step at which it is too late

    def send(self, command: bytes) -> "asyncio.Future[Any]":
        """The reply to come; it fails with ReplyError, _LostError or _TooSlowError."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(_LostError(self._reason))
            return future
        # A clock that runs already is somewhere in a step.
        self._waiting.append((future, self._step + self._steps + (self._clock is not None)))
        self._transport.write(command)
        if self._clock is None:
            self._clock = self._loop.call_later(self._step_s, self._tick)
        return future

    def _tick(self) -> None:
        """Watch over the oldest command: one clock for all of them costs less than one each."""
        self._step += 1
        self._clock = None
        if not self._waiting:
            return
        future, too_late = self._waiting[0]
        if self._step < too_late:
            self._clock = self._loop.call_later(self._step_s, self._tick)
            return
        # Replies come in order: what holds up this one holds up all. And a dead peer shows in no other way.
        if not future.done():
            future.set_exception(_TooSlowError("it was too slow"))
        self.abort("it was too slow")

    def abort(self, reason: str) -> None:
        self._reason = reason
        self._lost(self)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    self.abort("a reply that nobody asked for")
                    return
                self._answer(reply)
        except (hiredis.HiredisError, UnicodeError) as error:
            self.abort(f"not the protocol of Redis: {error}")

    def _answer(self, reply: Any) -> None:  # noqa: ANN401
        future, _ = self._waiting.popleft()
        if future.done():  # its caller gave up
            return
        if isinstance(reply, ReplyError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        if self._clock is not None:
            self._clock.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(_LostError(str(exc) if exc else self._reason))
        self._waiting.clear()
