"""One pipelined connection to Redis: redis-py opens it, this keeps it.

redis-py does what happens once a connection: resolving, TLS, authentication, SELECT. Then its transport is handed to a
bare protocol, which writes packed commands and reads with hiredis: redis-py's own client would cost several times the
CPU of a whole batch of decisions.
"""

import asyncio
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from extauth.errors import SettingsError, StoreError

# Others of redis-py's would change how this connection reads or waits, which is not theirs to say.
URL_OPTIONS = (
    "db",
    "username",
    "password",
    "client_name",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_min_version",
    "ssl_ciphers",
)


CONNECT_TIMEOUT_S = 1  # for each step: one that hangs must not hold up those that would do
_TOO_SLOW = "it was too slow"


class ReplyError(Exception):
    """An error reply, such as `NOSCRIPT …`."""


class _LostError(Exception):
    """The connection ended before the reply came."""


class Pipe:
    """Sends commands in order over one connection, made when first needed and again after it was lost."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._pool = _pool(url)
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._opening: asyncio.Task[_Link] | None = None

    def deadline(self) -> float:
        """When what begins now must be done, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    async def call(self, command: bytes, deadline: float | None = None) -> Any:  # noqa: ANN401 - whatever Redis replies
        """The reply to a packed command; raises ReplyError for an error reply, StoreError where there is none in time.

        A command whose connection dies under it is sent once more; Redis may then run it twice.
        """
        deadline = self.deadline() if deadline is None else deadline
        try:
            if (link := self._link) is not None:
                with suppress(_LostError):
                    return await link.send(command, deadline)
            async with asyncio.timeout_at(deadline):
                if link is None:
                    with suppress(_LostError):
                        return await (await self._connect()).send(command, deadline)
                return await (await self._connect()).send(command, deadline)
        except TimeoutError as error:
            self.drop(_TOO_SLOW)
            raise StoreError("timeout", f"no answer from Redis within {self._timeout_s} s") from error
        except _LostError as error:
            raise StoreError("connection", f"no connection to Redis: {error}") from error

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

    async def _connect(self) -> "_Link":
        """One attempt at a time, which all who wait share, and which goes on when one of them gives up."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _open(self) -> "_Link":
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreError("connection", f"no connection to Redis: {error}") from error
        return _Link(connection, self._lost)

    def _opened(self, opening: "asyncio.Task[_Link]") -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._link = opening.result()

    def _lost(self, link: "_Link") -> None:
        if self._link is link:
            self._link = None


def _pool(url: str) -> ConnectionPool:
    """Where connections come from; raises SettingsError.

    No value is shown, nor redis-py's error: either may hold the password.
    """
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if not options.keys() <= set(URL_OPTIONS):
        raise SettingsError("EXTAUTH_REDIS_URL: after the ? stands an option that is none of " + ", ".join(URL_OPTIONS))
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        for path in options.get(name, ()):
            try:
                Path(path).read_bytes()
            except OSError as error:
                message = f"EXTAUTH_REDIS_URL: {name}={path} cannot be read: {error.strerror}"
                raise SettingsError(message) from error
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=CONNECT_TIMEOUT_S,
        )
        connection = pool.make_connection()  # type: ignore[no-untyped-call]  # opens nothing, but takes all options
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except (TypeError, ValueError, RedisError, OSError):  # ssl.SSLError is an OSError
        raise SettingsError("EXTAUTH_REDIS_URL: an option after the ? has no value that will do") from None
    return pool


class _Link(asyncio.Protocol):
    """The protocol of one open connection."""

    def __init__(self, connection: AbstractConnection, lost: Any) -> None:  # noqa: ANN401
        self._lost = lost
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()  # with the deadlines
        self._watch: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._reason = "closed by Redis"
        # redis-py hands its transport out in no other way. Whoever holds the writer closes it when collected: keep it
        # here, and take it from there.
        self._writer = cast(asyncio.StreamWriter, connection._writer)  # noqa: SLF001
        connection._reader = connection._writer = None  # noqa: SLF001
        self._transport = cast(asyncio.Transport, self._writer.transport)
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()

    def send(self, command: bytes, deadline: float) -> "asyncio.Future[Any]":
        """The reply to come; TimeoutError where it does not by `deadline`, on the loop's clock."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._transport.is_closing():
            future.set_exception(_LostError(self._reason))
        else:
            self._waiting.append((future, deadline))
            self._transport.write(command)
            if self._watch is None:
                self._watch = self._loop.call_at(deadline, self._check)
        return future

    def _check(self) -> None:
        """Watch over the oldest command: one timer for all of them costs less than one each."""
        self._watch = None
        if not self._waiting:
            return
        future, deadline = self._waiting[0]
        if self._loop.time() < deadline:
            self._watch = self._loop.call_at(deadline, self._check)
            return
        # Replies come in order: what holds up this one holds up all. And a dead peer shows in no other way.
        if not future.done():
            future.set_exception(TimeoutError())
        self.abort(_TOO_SLOW)

    def abort(self, reason: str) -> None:
        self._reason = reason
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        if self._watch is not None:
            self._watch.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(_LostError(str(exc) if exc else self._reason))
        self._waiting.clear()
