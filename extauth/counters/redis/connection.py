"""One pipelined connection to Redis: redis-py opens it, this keeps it.

redis-py does what happens once a connection: TLS, authentication, SELECT. Then its transport is handed to a bare
protocol, which writes packed commands and reads with hiredis: redis-py's own client would cost several times the CPU of
a whole batch of decisions.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError

from extauth.counters.redis.greeting import Greeting, greet
from extauth.counters.redis.protocol import LostError, RedisProtocol, ReplyError, TooSlowError
from extauth.counters.redis.server import Server
from extauth.counters.waiting import within
from extauth.errors import StoreError

CONNECT_TIMEOUT_S = 1  # one attempt that hangs must not hold up the next, which may do
SEEK_S = 10  # for so long another server is sought in the background; later, calls do
ATTEMPT_EVERY_S = 0.05  # at most: a server that refuses at once is not to be stormed

# Of a server that is not, or not now, the one to ask: by now another may answer at the same address.
ELSEWHERE: Final = frozenset({"READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "WRONGPASS", "CLUSTERDOWN", "NOREPLICAS"})


class RedisConnection:
    """Sends commands in order over one connection, made when first needed and again after it was lost.

    Where another server takes the place of the one that it is connected to, it gives that one up at once, and connects
    to the other without being asked to: `reconnected` is called then.

    Its clock, `timeout_s`, runs for each command from when it was sent, and for the wait for a new connection. Where it
    runs out for one command, those that wait behind it fail too, and are not sent again. It counts in steps while the
    loop runs: a time for which this process was stopped is one step, however long, and is followed by a look at what
    came in meanwhile.
    """

    def __init__(
        self,
        server: Server,
        timeout_s: float,
        greeted: Callable[[str, Greeting], None] = lambda _where, _greeting: None,
    ) -> None:
        self.server = server
        self.server.when_switched(self._switched)
        self.reconnected: Callable[[], None] = lambda: None
        self._timeout_s = timeout_s
        self._greeted = greeted
        self._link: RedisProtocol | None = None
        self._opening: asyncio.Task[RedisProtocol] | None = None
        self._seeking: asyncio.Task[None] | None = None
        self._failure: tuple[str, str] | None = None  # of the last attempt to connect: kind and text of its StoreError
        self._next_attempt = 0.0  # on the loop's clock

    @property
    def where(self) -> str:
        """The server's address, for messages."""
        return self.server.where

    @property
    def title(self) -> str:
        """What the server is, with its address, for messages."""
        return f"{self.server.kind} at {self.server.where}"

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
                if error.code not in ELSEWHERE or not self._give_up(link):
                    raise
            return await (self._link or await self._connect()).send(command)
        except (TooSlowError, LostError) as error:
            raise self._failed(error, sent=sent) from error
        except StoreError as error:  # of the attempt to connect
            error.sent = sent
            raise

    async def execute_all(self, commands: Sequence[bytes], *, again: bool = True) -> list[Any]:
        """The replies to packed commands, one or more, that go out in one write, in order.

        An error reply is in its place, as the ReplyError. Commands that a dying connection left without a reply are
        sent `again`, once. Raises StoreError where one of them has no reply in time.
        """
        sent = False
        try:
            link = self._link or await self._connect()
            sent = True
            replies = await link.send_all(commands)
            lost = [i for i, reply in enumerate(replies) if isinstance(reply, LostError)]
            if lost:
                self._lost(link)
                if not again:
                    raise replies[lost[0]]
                link = self._link or await self._connect()
                later = await link.send_all([commands[i] for i in lost])
                for i, reply in zip(lost, later, strict=True):
                    replies[i] = reply
            for reply in replies:
                if isinstance(reply, (LostError, TooSlowError)):
                    raise reply
        except (TooSlowError, LostError) as error:
            raise self._failed(error, sent=sent) from error
        except StoreError as error:  # of the attempt to connect
            error.sent = sent
            raise
        return replies

    async def connect(self) -> None:
        """Return once the server has answered on a connection, as it must while that is set up; raises StoreError."""
        try:
            if self._link is None:
                await self._connect()
        except (TooSlowError, LostError) as error:
            raise self._failed(error, sent=False) from error
        except StoreError as error:
            error.sent = False
            raise

    async def aclose(self) -> None:
        """Close; commands under way fail."""
        await self.server.aclose()
        for task in (self._seeking, self._opening):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.drop("closed")

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._link is not None

    def local_host(self) -> str | None:
        """This end's IP address; None over a Unix socket, or without a connection."""
        return None if self._link is None else self._link.local_host()

    def drop_senseless(self) -> StoreError:
        """Give the connection up after a reply that is none of the script's, and say so.

        It may be another command's: so may be all that follow.
        """
        self.drop("a reply that makes no sense")
        return StoreError("reply", "Redis replied what the script never says")

    def drop(self, reason: str) -> None:
        """Give the connection up: what comes over it can no longer be trusted, or waited for."""
        if self._link is not None:
            self._link.abort(reason)

    def _switched(self) -> None:
        self.drop("another server has taken its place")
        if self._seeking is None or self._seeking.done():
            self._seeking = asyncio.create_task(self._seek())

    async def _seek(self) -> None:
        until = asyncio.get_running_loop().time() + SEEK_S
        while self._link is None and asyncio.get_running_loop().time() < until:
            with suppress(StoreError):
                await self.connect()
                self.reconnected()
            await asyncio.sleep(ATTEMPT_EVERY_S)

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
        connection: AbstractConnection | None = None
        try:
            connection = await self.server.connection()
            greeting = await open_connection(connection)
            if wrong := self.server.refusal(greeting):
                raise StoreError("reply", f"{self.title} {wrong}")  # noqa: TRY301 - as what else goes wrong
            if not self.server.stands(connection):
                raise LostError("another server has taken its place")  # noqa: TRY301
            self._greeted(self.server.where, greeting)
            self._link = RedisProtocol(connection, self._timeout_s, self._lost)
        except StoreError:
            raise
        except Exception as error:
            # Whatever it is. Where the peer closes meanwhile, uvloop's transport raises RuntimeError, for one.
            raise self._no_connection(error) from error
        else:
            return self._link
        finally:
            if connection is not None:
                await connection.disconnect(nowait=True)  # nothing, once the link has it

    def _opened(self, opening: "asyncio.Task[RedisProtocol]") -> None:
        self._opening = None
        if opening.cancelled():
            return
        error = opening.exception()
        self._failure = (error.kind, str(error)) if isinstance(error, StoreError) else None

    def _failed(self, error: TooSlowError | LostError, *, sent: bool) -> StoreError:
        if isinstance(error, LostError):
            return self._no_connection(error, sent=sent)
        return StoreError("timeout", f"no answer from {self.title} within {self._timeout_s} s", sent=sent)

    def _no_connection(self, error: Exception, *, sent: bool = False) -> StoreError:
        reason = str(error)
        # redis-py wraps what it meets on a Unix socket once more.
        if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
            return StoreError("reply", f"{self.title} {self.server.not_let_in}: {reason}", sent=sent)
        at = "" if self.where in reason else f" at {self.where}"
        return StoreError("connection", f"no connection to {self.server.kind}{at}: {reason}", sent=sent)

    def _lost(self, link: "RedisProtocol") -> None:
        if self._link is link:
            self._link = None


async def open_connection(connection: AbstractConnection) -> Greeting:
    """Open it within CONNECT_TIMEOUT_S, and learn what its server is; raises redis-py's errors, OSError, LostError."""

    async def connect() -> Greeting:
        await connection.connect()  # type: ignore[no-untyped-call]
        return await greet(connection)

    connecting = asyncio.create_task(connect())
    try:
        if not await within(connecting, CONNECT_TIMEOUT_S):
            raise LostError(f"not within {CONNECT_TIMEOUT_S} s")
        return connecting.result()
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
