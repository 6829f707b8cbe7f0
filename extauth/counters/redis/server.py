"""Which server a connection goes to, and what it must be."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.lookup import BY_ADDRESS, AddressLookup, ByAddress
from extauth.counters.redis.url_parts import FILE_OPTIONS
from extauth.errors import SettingsError

NOT_LET_IN = "refuses the user or the password that EXTAUTH_REDIS_URL has, or lacks"
CLUSTER = (
    "is a node of a Redis Cluster: EXTAUTH_REDIS_URL must be redis+cluster://HOST:PORT, or rediss+cluster:// for TLS"
)
REPLICA = "is a read-only replica: counting needs the master"
SENTINEL = (
    "is a Sentinel, which counts nothing: EXTAUTH_REDIS_URL must be redis+sentinel://HOST:PORT/MASTER, where MASTER is "
    "the name under which it watches the master, or the master's own address"
)

# What is wrong, after `Redis at HOST:PORT`, by the code of the reply.
REFUSALS = {
    "READONLY": REPLICA,
    "MASTERDOWN": "is a replica that has lost its master",
    "LOADING": "is still loading its data",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write, and refuses writes",
    "NOAUTH": NOT_LET_IN,
    "WRONGPASS": NOT_LET_IN,
    "NOPERM": "denies the user of EXTAUTH_REDIS_URL a right that counting needs",
    "OOM": "is full: it is at its maxmemory, and its maxmemory-policy evicts nothing",
    "MISCONF": "cannot save its data on disk, and refuses writes",
    "BUSY": "is busy with somebody's script",
    "CLUSTERDOWN": CLUSTER,
    "CROSSSLOT": CLUSTER,
    "MOVED": CLUSTER,
    "ASK": CLUSTER,
    "TRYAGAIN": CLUSTER,
}


class Address(NamedTuple):
    """Where a server listens, as other servers announce it: an IP address or a name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Server(Protocol):
    """The server to connect to. It may be another one each time."""

    @property
    def kind(self) -> str:
        """What it is, for messages."""

    @property
    def where(self) -> str:
        """Its address, for messages."""

    @property
    def not_let_in(self) -> str:
        """What it does where it refuses the user or the password, for messages."""

    async def connection(self) -> AbstractConnection:
        """A connection to it that is not open yet; raises StoreError where it is not known which server it is."""

    def refusal(self, greeting: Greeting) -> str:
        """Why a server that greets so will not do, as what follows its name; empty where it will."""

    def stands(self, connection: AbstractConnection) -> bool:
        """Whether this connection's server is still the one to connect to."""

    def when_switched(self, switched: Callable[[], None]) -> None:
        """Have `switched` called each time when another server takes its place."""

    async def aclose(self) -> None:
        """Give up what goes on in the background."""


class FixedServer:
    """The server that a URL names; raises SettingsError where an option of the URL will not do.

    `shown` has the names under which the user knows options, where they have others in this URL.
    """

    kind = "Redis"
    not_let_in = NOT_LET_IN

    def __init__(self, url: str, *, shown: Mapping[str, str] | None = None) -> None:
        self._pool = pool(url, shown or {})
        self._lookup = AddressLookup()
        options = self._pool.connection_kwargs
        self.where = str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    async def connection(self) -> AbstractConnection:
        """See Server."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, ByAddress):
            connection.lookup = self._lookup
        return connection

    def refusal(self, greeting: Greeting) -> str:
        """See Server."""
        if greeting.mode == "sentinel":
            return SENTINEL
        if greeting.mode == "cluster":
            return CLUSTER
        return f"{REPLICA}, so EXTAUTH_REDIS_URL must name that one" if greeting.role == "replica" else ""

    def stands(self, _connection: AbstractConnection) -> bool:
        """It is always the same one."""
        return True

    def when_switched(self, switched: Callable[[], None]) -> None:
        """No other ever takes its place."""

    async def aclose(self) -> None:
        """Nothing goes on."""


def pool(url: str, shown: Mapping[str, str]) -> ConnectionPool:
    """Where connections come from; raises SettingsError.

    No value is shown, nor redis-py's error: either may hold the password.
    """
    options = parse_qs(urlsplit(url).query)
    for name in FILE_OPTIONS:
        for path in options.get(name, ()):
            try:
                Path(path).read_bytes()
            except OSError as error:
                message = f"the file of the option {shown.get(name, name)} cannot be read: {error.strerror}"
                raise SettingsError(f"EXTAUTH_REDIS_URL: {message}") from error
    try:
        return _try_pool(url)
    except (TypeError, ValueError, RedisError, OSError):  # ssl.SSLError is an OSError
        names = [shown.get(name, name) for name in _refused(url, options) or options]
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
