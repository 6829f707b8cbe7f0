"""One pipelined connection to Redis: redis-py opens it, this keeps it.

redis-py does what happens once a connection: TLS, authentication, SELECT. Then its transport is handed to a bare
protocol, which writes packed commands and reads with hiredis: redis-py's own client would cost several times the CPU of
a whole batch of decisions.
"""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from extauth.counters.redis.endpoint import FILE_OPTIONS, fault
from extauth.counters.redis.lookup import BY_ADDRESS, AddressLookup, ByAddress
from extauth.counters.redis.protocol import LostError, RedisProtocol, ReplyError, TooSlowError
from extauth.counters.waiting import within
from extauth.errors import SettingsError, StoreError

CONNECT_TIMEOUT_S = 1  # one attempt that hangs must not hold up the next, which may do
NOT_LET_IN = "refuses the user or the password that EXTAUTH_REDIS_URL has, or lacks"
ATTEMPT_EVERY_S = 0.05  # at most: a server that refuses at once is not to be stormed

# Of a server that is not, or not now, the one to ask: by now another may answer at the same address.
_ELSEWHERE = frozenset({"READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "NOREPLICAS"})


class RedisConnection:
    """Sends commands in order over one connection, made when first needed and again after it was lost.

    Its clock, `timeout_s`, runs for each command from when it was sent, and for the wait for a new connection. It
    counts in steps while the loop runs: a time for which this process was stopped is one step, however long, and is
    followed by a look at what came in meanwhile.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._pool = _pool(url)
        self._lookup = AddressLookup()
        self._timeout_s = timeout_s
        self._link: RedisProtocol | None = None
        self._opening: asyncio.Task[RedisProtocol] | None = None
        self._failure: tuple[str, str] | None = None  # of the last attempt to connect: kind and text of its StoreError
        self._next_attempt = 0.0  # on the loop's clock
        options = self._pool.connection_kwargs
        self.where = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    async def execute(self, command: bytes, *, again: bool = True) -> Any:  # noqa: ANN401 - whatever Redis replies
        """The reply to a packed command; raises ReplyError for an error reply, StoreError where there is none in time.

        A command whose connection dies under it is sent `again`, once, and Redis may then run it twice. So is one that
        the server refused because another has taken its place, unless the connection is as new as one may be.
        """
        sent = False
        try:
            link = self._link or await self._connect()
            sent = True
            try:
                return await link.send(command)
            except LostError:
                self._lost(link)
                if not again:
                    raise
            except ReplyError as error:
                if error.code not in _ELSEWHERE or not self._give_up(link):
                    raise
            return await (self._link or await self._connect()).send(command)
        except TooSlowError as error:
            message = f"no answer from Redis at {self.where} within {self._timeout_s} s"
            raise StoreError("timeout", message, sent=sent) from error
        except LostError as error:
            raise self._no_connection(error, sent=sent) from error
        except StoreError as error:  # of the attempt to connect
            error.sent = sent
            raise

    async def aclose(self) -> None:
        """Close; commands under way fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.drop("closed")
        await self._pool.disconnect()

    def local_host(self) -> str | None:
        """This end's IP address; None over a Unix socket, or without a connection."""
        return None if self._link is None else self._link.local_host()

    def drop(self, reason: str) -> None:
        """Give the connection up: what comes over it can no longer be trusted, or waited for."""
        if self._link is not None:
            self._link.abort(reason)

    def _give_up(self, link: "RedisProtocol") -> bool:
        """Whether another connection than this one can be tried now."""
        if self._link is link:
            if asyncio.get_running_loop().time() < self._next_attempt:
                return False
            self.drop("another may have taken its place")
        return True

    async def _connect(self) -> "RedisProtocol":
        """One attempt at a time, which all who wait share, and which goes on when one of them gives up."""
        if self._opening is None:
            if self._failure is not None and asyncio.get_running_loop().time() < self._next_attempt:
                raise StoreError(*self._failure, sent=False)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        if not await within(opening, self._timeout_s):
            raise TooSlowError("it was too slow")
        if opening.cancelled():
            raise LostError("closed")
        return opening.result()

    async def _open(self) -> "RedisProtocol":
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_attempt - loop.time())
        self._next_attempt = loop.time() + ATTEMPT_EVERY_S
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, ByAddress):
            connection.lookup = self._lookup
        connecting = asyncio.create_task(connection.connect())  # type: ignore[no-untyped-call]
        try:
            if not await within(connecting, CONNECT_TIMEOUT_S):
                raise LostError(f"not within {CONNECT_TIMEOUT_S} s")  # noqa: TRY301 - said below, as the others
            connecting.result()
            return RedisProtocol(connection, self._timeout_s, self._lost)
        except Exception as error:
            # Whatever it is. Where the peer closes meanwhile, uvloop's transport raises RuntimeError, for one.
            raise self._no_connection(error) from error
        finally:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await connection.disconnect(nowait=True)  # nothing, once the link has it

    def _opened(self, opening: "asyncio.Task[RedisProtocol]") -> None:
        self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()
        self._failure = (error.kind, str(error)) if isinstance(error, StoreError) else None
        if error is None:
            self._link = opening.result()

    def _no_connection(self, error: Exception, *, sent: bool = False) -> StoreError:
        reason = str(error)
        # redis-py wraps what it meets on a Unix socket once more.
        if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
            return StoreError("reply", f"Redis at {self.where} {NOT_LET_IN}: {reason}", sent=sent)
        at = "" if self.where in reason else f" at {self.where}"
        return StoreError("connection", f"no connection to Redis{at}: {reason}", sent=sent)

    def _lost(self, link: "RedisProtocol") -> None:
        if self._link is link:
            self._link = None


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
        socket_connect_timeout=None,  # its timers do not wait in steps: see counters/waiting.py
        socket_timeout=None,
    )
    pool.connection_class = BY_ADDRESS.get(pool.connection_class, pool.connection_class)
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
