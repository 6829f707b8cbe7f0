"""Names of Redis, looked up in threads of their own.

The look-ups of an event loop share a few threads, and cannot be given up. While a name server does not answer, each
holds its thread for 10 s or more, and the next one waits for a free thread, however well the name server is by then.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from redis.asyncio.connection import Connection, SSLConnection

from extauth.address import plain_host

RENEW_S = 0.4
"""A look-up that takes longer is given up for a new one: what makes it hang may be over."""
MOST_RUNNING = 32
"""Threads of look-ups that hang. With RENEW_S between them, none waits for a thread where each hangs for 12 s."""

_Result: TypeAlias = "list[str] | OSError"


class AddressLookup:
    """Looks up the addresses of one host at a time; `renew_s` is as RENEW_S."""

    def __init__(self, renew_s: float = RENEW_S) -> None:
        self._renew_s = renew_s
        self._running: set[asyncio.Future[_Result]] = set()

    @property
    def running(self) -> int:
        """The number of look-ups that have not ended, those that were given up included."""
        return len(self._running)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses that a name stands for, in the order in which to try them; raises OSError.

        It waits until one is known. Of several look-ups the first that succeeds counts, and of failures the newest
        look-up's.
        """
        with suppress(OSError):
            return _resolve(host, port, socket.AI_NUMERICHOST)
        newest: asyncio.Future[_Result] | None = None
        while True:
            if len(self._running) < MOST_RUNNING:
                newest = self._start(host, port)
            ended, _ = await asyncio.wait(self._running, timeout=self._renew_s, return_when=asyncio.FIRST_COMPLETED)
            for each in ended:
                result = each.result()
                if not isinstance(result, OSError):
                    return result
                if each is newest:
                    raise result

    def _start(self, host: str, port: int) -> "asyncio.Future[_Result]":
        loop = asyncio.get_running_loop()
        ends: asyncio.Future[_Result] = loop.create_future()

        def look_up() -> None:
            result: _Result
            try:
                result = _resolve(host, port, 0)
            except (OSError, UnicodeError) as error:  # a name that cannot be encoded
                result = error if isinstance(error, OSError) else OSError(str(error))
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(ends.set_result, result)

        # A daemon, because one that hangs must not keep the process from ending.
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        self._running.add(ends)
        ends.add_done_callback(self._running.discard)
        return ends


def _resolve(host: str, port: int, flags: int) -> list[str]:
    found = socket.getaddrinfo(plain_host(host), port, type=socket.SOCK_STREAM, flags=flags)
    addresses = [socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] for *_, address in found]
    return list(dict.fromkeys(addresses))


class ByAddress(Connection):
    """redis-py's connection, which tries each address that `lookup` finds. A certificate must still name the host."""

    lookup: AddressLookup
    _address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address or self.host}
        return {**arguments, "server_hostname": self.host} if "ssl" in arguments else arguments

    async def _connect(self) -> None:
        errors: list[OSError] = []
        for address in await self.lookup.addresses(self.host, self.port):
            self._address = address
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except ssl.SSLError:
                raise
            except OSError as error:
                errors.append(error)
            else:
                return
        raise OSError(errors[-1].errno, "; ".join([error.strerror or str(error) for error in errors]))


class ByAddressTls(ByAddress, SSLConnection):
    """The same over TLS, which it ends at once: it waits for no goodbye of the peer's, which may never come."""

    async def disconnect(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        """As redis-py's, whatever it is given."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


BY_ADDRESS: Mapping[type, type[ByAddress]] = {Connection: ByAddress, SSLConnection: ByAddressTls}
"""By the class of redis-py, which would look names up in the event loop's threads."""
