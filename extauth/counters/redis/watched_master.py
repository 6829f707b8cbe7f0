"""The master that sentinels watch: where it is as most of them say, and left at once when one announces a switch.

- A look-up asks all sentinels of the URL. It ends when more than half of all agree, or when each has answered or
  failed to: then more than half of those that answered must agree. A sentinel that lies, or that has not heard of a
  fail-over yet, is outvoted.
- Each sentinel is subscribed to. At its `+switch-master` the connection is dropped, before others have confirmed it:
  a master that is cut off from the sentinels may still answer, and what it counts is lost.
- Until the announced one is confirmed, the master that was left is not connected to, whatever a majority says that may
  not have heard yet, unless the sentinel that announced the switch says so too. After BELIEVED_S it is not believed any
  more, nor is what it announces, until it agrees with the others again.
- A subscription that begins is followed by a look-up, for a switch may have been missed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from redis.asyncio.connection import AbstractConnection, Connection

from extauth.counters.redis.endpoint import fault
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.lookup import AddressLookup, ByAddress
from extauth.counters.redis.sentinel import Sentinel, SentinelServer, Switch
from extauth.counters.redis.sentinel_url import SCHEMES, SentinelUrl, read_sentinel_url
from extauth.counters.redis.server import CLUSTER, NOT_LET_IN, Address, FixedServer, Server, pool
from extauth.errors import SettingsError, StoreError

BELIEVED_S = 3.0
"""Sentinels tell each other of a switch within two seconds."""
CHECK_AFTER_S = 0.05


@dataclass(frozen=True, slots=True)
class _Left:
    """A master that was left because of an announcement, and until when, on the loop's clock, that is believed."""

    address: Address
    announcer: Sentinel
    until: float


class WatchedMaster:
    """The `Server` of a URL of sentinels; raises SettingsError where an option of the URL will not do."""

    kind = "Redis"
    not_let_in = NOT_LET_IN

    def __init__(self, url: SentinelUrl) -> None:
        self._name = url.master
        self._pool = pool(url.master_url, {})
        self._sentinels = [Sentinel(SentinelServer(each, shown=url.shown), url.master) for each in url.sentinel_urls]
        self._lookup = AddressLookup()
        self._address: Address | None = None
        self._left: _Left | None = None
        self._switched: Callable[[], None] = lambda: None
        self._listening: list[asyncio.Task[None]] = []
        self._checking: asyncio.Task[None] | None = None

    @property
    def where(self) -> str:
        """See Server."""
        if self._address is not None:
            return str(self._address)
        return f"master {self._name!r} (sentinels {', '.join(each.where for each in self._sentinels)})"

    async def connection(self) -> AbstractConnection:
        """See Server; the sentinels are asked each time."""
        if not self._listening:
            self._listening = [
                asyncio.create_task(each.listen(self._check_soon, self._announced)) for each in self._sentinels
            ]
        address = await self._look_up()
        if address != self._address:
            self._address, self._lookup = address, AddressLookup()
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        assert isinstance(connection, ByAddress)  # noqa: S101 - as all that are no Unix sockets
        connection.host, connection.port, connection.lookup = *address, self._lookup
        return connection

    def refusal(self, greeting: Greeting) -> str:
        """See Server."""
        if greeting.role == "replica":
            return f"is still a replica, though most sentinels call it the master {self._name!r}"
        return CLUSTER if greeting.mode == "cluster" else ""

    def stands(self, connection: AbstractConnection) -> bool:
        """See Server."""
        return isinstance(connection, Connection) and (connection.host, connection.port) == self._address

    def when_switched(self, switched: Callable[[], None]) -> None:
        """See Server."""
        self._switched = switched

    async def aclose(self) -> None:
        """See Server."""
        tasks = [*self._listening, *([self._checking] if self._checking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sentinel in self._sentinels:
            await sentinel.aclose()

    def _announced(self, announcer: Sentinel, switch: Switch) -> None:
        if switch.new == self._address:
            return
        if announcer.contradicted or self._address not in {None, switch.old}:
            self._check_soon()
            return
        if self._left is None or self._left.address != switch.old:
            self._left = _Left(switch.old, announcer, asyncio.get_running_loop().time() + BELIEVED_S)
        self._leave()

    def _leave(self) -> None:
        self._address = None
        self._switched()

    def _check_soon(self) -> None:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())

    async def _check(self) -> None:
        """Leave a master that most sentinels do not call so."""
        await asyncio.sleep(CHECK_AFTER_S)  # at most so often, whatever a sentinel announces
        with suppress(StoreError):  # whoever connects next is told
            address = await self._look_up()
            if self._address not in {None, address}:
                self._leave()

    async def _look_up(self) -> Address:
        """Where the master is; raises StoreError where that is not known."""
        left = self._left
        asked = {asyncio.create_task(each.master()): each for each in self._sentinels}
        said: dict[Sentinel, Address | None] = {}
        failed: dict[Sentinel, StoreError] = {}
        pending = set(asked)
        try:
            while pending and (left is not None or _majority(said, len(self._sentinels)) is None):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        said[asked[task]] = task.result()
                    except StoreError as error:
                        failed[asked[task]] = error
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        address = _majority(said, len(said) if not pending else len(self._sentinels))
        if address is None:
            raise self._unknown(said, failed)
        if self._left is not left:  # what they said may be older
            raise StoreError("reply", f"the master {self._name!r} is about to be another server")
        self._believe(address, said)
        return address

    def _believe(self, address: Address, said: dict[Sentinel, Address | None]) -> None:
        """Raises StoreError where it is that of the master that was left."""
        for sentinel, each in said.items():
            if each == address:
                sentinel.contradicted = False
        left = self._left
        if left is None:
            return
        if asyncio.get_running_loop().time() >= left.until:
            left.announcer.contradicted = address == left.address != said.get(left.announcer)
            self._left = None
        elif address == left.address:
            if said.get(left.announcer) != address:
                message = f"the sentinel at {left.announcer.where} has announced that the master {self._name!r} is no "
                raise StoreError(
                    "reply", f"{message}longer at {address}, and most sentinels do not know yet where it is"
                )
            self._left = None

    def _unknown(self, said: dict[Sentinel, Address | None], failed: dict[Sentinel, StoreError]) -> StoreError:
        if not said:
            kinds = {error.kind for error in failed.values()}
            reasons = "; ".join(str(failed[each]) for each in self._sentinels)
            message = f"no sentinel says where the master {self._name!r} is: {reasons}"
            return StoreError("reply" if "reply" in kinds else "connection", message)
        if set(said.values()) == {None}:
            them = ", ".join(each.where for each in self._sentinels if each in said)
            message = f"the sentinels know no master {self._name!r} ({them}): EXTAUTH_REDIS_URL must name it as"
            return StoreError("reply", f"{message} `sentinel monitor` does in their configuration")
        views = ", ".join(f"{each.where} says {said[each] or 'none'}" for each in self._sentinels if each in said)
        return StoreError("reply", f"the sentinels do not agree where the master {self._name!r} is: {views}")


def server_of(url: str) -> Server:
    """Where the store of this URL is; raises SettingsError, which shows no value."""
    if wrong := fault(url):
        raise SettingsError(f"EXTAUTH_REDIS_URL: {wrong}")
    return WatchedMaster(read_sentinel_url(url)) if url.partition(":")[0] in SCHEMES else FixedServer(url)


def _majority(said: dict[Sentinel, Address | None], of: int) -> Address | None:
    """The address that more than half of so many sentinels say."""
    (address, votes), *_ = Counter(said.values()).most_common(1) or [(None, 0)]
    return address if 2 * votes > of else None
