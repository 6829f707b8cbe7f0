"""One sentinel: what it answers, and what it announces."""

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from redis.asyncio.connection import AbstractConnection

from extauth.counters.redis.connection import RedisConnection, open_connection
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.protocol import LostError, ReplyError
from extauth.counters.redis.server import NOT_LET_IN, Address, FixedServer
from extauth.counters.waiting import within
from extauth.errors import StoreError

ANSWER_TIMEOUT_S = 0.25
SILENCE_S = 3.0
"""After so long without a word from a sentinel it is asked for one, and after as long again it is given up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.1, 2.0, 5.0
"""Before a lost subscription is made again. The pause doubles up to the longest until one has lasted for STEADY_S."""
RIGHTS = "+sentinel|get-master-addr-by-name +subscribe +ping &+switch-master"

_SWITCH = "+switch-master"


class Switch(NamedTuple):
    """A master is no longer at one address, but at another."""

    old: Address
    new: Address


class SentinelServer(FixedServer):
    """Where a sentinel listens."""

    kind = "the sentinel"
    not_let_in = f"{NOT_LET_IN}, as sentinel_username and sentinel_password"

    def refusal(self, greeting: Greeting) -> str:
        """Any other server counts, and watches over nothing."""
        if greeting.mode in {"", "sentinel"}:
            return ""
        return "is none: EXTAUTH_REDIS_URL has the addresses of sentinels before /MASTER, whose usual port is 26379"


class Sentinel:
    """One of the sentinels that watch `master`.

    `contradicted`: it announced what the others do not say, and has not agreed with them since.
    """

    def __init__(self, server: FixedServer, master: str) -> None:
        self._server = server
        self._queries = RedisConnection(server, ANSWER_TIMEOUT_S)
        self._master = master.encode()
        self._question = _command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)
        self.contradicted = False

    @property
    def where(self) -> str:
        """Its address, for messages."""
        return self._server.where

    async def master(self) -> Address | None:
        """Where the master is, or None where it knows none of that name; raises StoreError where it does not say."""
        try:
            reply = await self._queries.execute(self._question)
        except ReplyError as error:
            what = {"NOAUTH": self._server.not_let_in, "NOPERM": f"denies the user a right of {RIGHTS}"}
            message = f"the sentinel at {self.where} {what.get(error.code, 'refused')}: {error}"
            raise StoreError("reply", message) from error
        if reply is None:
            return None
        with suppress(TypeError, ValueError):
            host, port = reply
            return Address(host.decode(), int(port))
        raise StoreError("reply", f"the sentinel at {self.where} gave an answer that is no address")

    async def listen(self, subscribed: Callable[[], None], switched: Callable[["Sentinel", Switch], None]) -> None:
        """Hear its announcements, for ever; `subscribed` is called when that begins, and begins again."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            with suppress(Exception):  # whatever it is, it is tried again, and look-ups say what is wrong
                await self._listen_once(subscribed, switched)
            pause_s = FIRST_PAUSE_S if loop.time() - began >= STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * (1 - random.random() / 2))  # noqa: S311 - so that not all come at once

    async def aclose(self) -> None:
        """Close the connection for questions."""
        await self._queries.aclose()

    async def _listen_once(
        self, subscribed: Callable[[], None], switched: Callable[["Sentinel", Switch], None]
    ) -> None:
        connection = await self._server.connection()
        try:
            await open_connection(connection)
            await connection.send_command("SUBSCRIBE", _SWITCH)
            while True:
                match await _heard(connection):
                    case [b"subscribe", *_]:
                        subscribed()
                    case [b"message", _, bytes(text)] if switch := self._switch(text):
                        switched(self, switch)
        finally:
            await connection.disconnect(nowait=True)

    def _switch(self, text: bytes) -> Switch | None:
        """What `NAME OLD_HOST OLD_PORT NEW_HOST NEW_PORT` says of the master."""
        with suppress(ValueError):
            name, *rest = text.split(b" ")
            old_host, old_port, new_host, new_port = rest
            if name == self._master:
                return Switch(Address(old_host.decode(), int(old_port)), Address(new_host.decode(), int(new_port)))
        return None


async def _heard(connection: AbstractConnection) -> object:
    """The next message; raises LostError where the peer is silent even when asked for a word, as a dead one is."""
    reading = asyncio.ensure_future(connection.read_response(timeout=math.inf))
    try:
        for _ in range(2):
            if await within(reading, SILENCE_S):
                return reading.result()
            await connection.send_command("PING")
        raise LostError("silent")
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
