"""Nodes of a cluster, as what a connection goes to."""

from collections.abc import Callable
from typing import Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from extauth.counters.redis.cluster.slots import SlotMap, read_slots
from extauth.counters.redis.connection import RedisConnection
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.lookup import AddressLookup, ByAddress
from extauth.counters.redis.protocol import ReplyError
from extauth.counters.redis.scripts import command
from extauth.counters.redis.server import NOT_LET_IN, SENTINEL, Address, Server
from extauth.errors import StoreError

ANSWER_TIMEOUT_S: Final = 0.25
RIGHTS: Final = "+cluster|slots +asking"
CLUSTER_SLOTS: Final = command(b"CLUSTER", b"SLOTS")

_NO_NODE = "belongs to no Redis Cluster: EXTAUTH_REDIS_URL must be redis:// or rediss:// with its address"


class ClusterNode(Server):
    """The `Server` at an address of the cluster.

    One that counts must be a `master`, and of a cluster unless those in front of it say of `any_mode` that they are of
    none, as services do that only look like a cluster.
    """

    kind = "Redis"
    not_let_in = NOT_LET_IN

    def __init__(
        self, pool: ConnectionPool, address: Address, *, master: bool, any_mode: Callable[[], bool] = lambda: True
    ) -> None:
        self.address = address
        self._pool = pool
        self._master = master
        self._any_mode = any_mode
        self._lookup = AddressLookup()

    @property
    def where(self) -> str:
        """See Server."""
        return str(self.address)

    async def connection(self) -> AbstractConnection:
        """See Server."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        assert isinstance(connection, ByAddress)  # noqa: S101 - as all that are no Unix sockets
        connection.host, connection.port, connection.lookup = *self.address, self._lookup
        return connection

    def refusal(self, greeting: Greeting) -> str:
        """See Server."""
        if greeting.mode == "sentinel":
            return SENTINEL
        if greeting.mode == "standalone" and not self._any_mode():
            return _NO_NODE
        if self._master and greeting.role == "replica":
            return "is a replica, though nodes of the cluster call it the master of its slots"
        return ""

    def stands(self, _connection: AbstractConnection) -> bool:
        """Its address is its own."""
        return True

    def when_switched(self, switched: object) -> None:
        """No other ever takes its place."""

    async def aclose(self) -> None:
        """Nothing goes on."""


async def ask(pipe: RedisConnection, address: Address) -> SlotMap:
    """What a node says of the cluster; raises StoreError."""
    try:
        return read_slots(await pipe.execute(CLUSTER_SLOTS), address)
    except ReplyError as error:
        if "cluster support disabled" in str(error):
            raise StoreError("reply", f"Redis at {address} {_NO_NODE}") from error
        what = {"NOAUTH": NOT_LET_IN, "NOPERM": f"denies the user of EXTAUTH_REDIS_URL a right of {RIGHTS}"}
        reply = str(error).partition("\n")[0][:200]
        raise StoreError("reply", f"Redis at {address} {what.get(error.code, 'refused')}: {reply}") from error
    except ValueError as error:
        raise StoreError("reply", f"Redis at {address} gave {error}") from error


async def ask_once(pool: ConnectionPool, address: Address, greeted: Callable[[str, Greeting], None]) -> SlotMap:
    """The same over a connection of its own."""
    pipe = RedisConnection(ClusterNode(pool, address, master=False), ANSWER_TIMEOUT_S, greeted)
    try:
        return await ask(pipe, address)
    finally:
        await pipe.aclose()
