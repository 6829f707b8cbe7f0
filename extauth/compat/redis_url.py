"""The Redis URL that envoyproxy/ratelimit's variables REDIS_* stand for. No message shows a value."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

_SCHEME: Final = re.compile(r"(rediss?)://(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisVariables:
    """What the variables say; `auth` and `sentinel_auth` are PASSWORD or USER:PASSWORD."""

    type: str = "SINGLE"
    socket_type: str = "unix"
    url: str
    auth: str = ""
    sentinel_auth: str = ""
    tls: bool = False
    cert: str = ""
    key: str = ""
    ca: str = ""
    skip_hostname: bool = False


class _User(NamedTuple):
    """Who a connection is for; empty where that is not said."""

    name: str = ""
    password: str = ""

    @classmethod
    def of(cls, auth: str) -> "_User":
        """The user of PASSWORD or USER:PASSWORD."""
        name, found, password = auth.partition(":")
        return cls(name, password) if found else cls("", auth)

    def over(self, other: "_User") -> "_User":
        """This one, and of the other what is not said here."""
        return _User(self.name or other.name, self.password or other.password)

    def in_url(self) -> str:
        """The part before the host."""
        return f"{quote(self.name, safe='')}:{quote(self.password, safe='')}@" if any(self) else ""

    def options(self, prefix: str = "") -> dict[str, str]:
        """As options of a URL."""
        found = {f"{prefix}username": self.name, f"{prefix}password": self.password}
        return {option: value for option, value in found.items() if value}


_NOBODY: Final = _User()


@dataclass(frozen=True, slots=True)
class _Address:
    """One of the addresses in REDIS_URL, with what else a redis:// URL says."""

    host: str
    user: _User = _NOBODY
    path: str = ""
    tls: bool = False


def redis_url(given: RedisVariables) -> str:
    """A URL as EXTAUTH_REDIS_URL takes it; raises ValueError with what is wrong and what would mend it."""
    kind = given.type.lower()
    if kind not in {"single", "cluster", "sentinel"}:
        raise ValueError("REDIS_TYPE must be SINGLE, CLUSTER or SENTINEL")
    if kind == "single" and given.socket_type == "unix" and given.url.startswith(("/", "./", "../")):
        return _socket(given)
    master, parts = "", [part.strip() for part in given.url.split(",")]
    if kind == "sentinel":
        master, *parts = parts
        if not master or not parts:
            raise ValueError("REDIS_URL must be MASTER,HOST:PORT,… where REDIS_TYPE is SENTINEL")
    elif kind == "single" and len(parts) > 1:
        raise ValueError("REDIS_URL names several hosts: set REDIS_TYPE to CLUSTER or SENTINEL, or name one host")
    addresses = [_address(part) for part in parts]
    if len({address.user for address in addresses}) > 1 or len({address.tls for address in addresses}) > 1:
        raise ValueError("the addresses in REDIS_URL must have the same scheme, user and password")
    return _url(given, kind, master, addresses)


def _url(given: RedisVariables, kind: str, master: str, addresses: list[_Address]) -> str:
    first = addresses[0]
    scheme = ("rediss" if given.tls or first.tls else "redis") + ("" if kind == "single" else f"+{kind}")
    options = _tls_options(given) if scheme.startswith("rediss") else {}
    user, path = _User.of(given.auth).over(first.user), first.path
    if kind == "sentinel":
        if any(address.path for address in addresses):
            raise ValueError("REDIS_URL must name no database where REDIS_TYPE is SENTINEL")
        # There, a user in the address of a sentinel is the sentinel's.
        options |= _User.of(given.sentinel_auth).over(first.user).options("sentinel_")
        user, path = _User.of(given.auth), f"/{quote(master, safe='')}"
    hosts = ",".join(address.host for address in addresses)
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{user.in_url()}{hosts}{path}{query}"


def _socket(given: RedisVariables) -> str:
    if given.tls:
        raise ValueError(
            "REDIS_TLS=true cannot be used with a Unix socket: set REDIS_SOCKET_TYPE=tcp, or REDIS_TLS=false"
        )
    options = _User.of(given.auth).options()
    path = Path(given.url).absolute()
    return f"unix://{quote(str(path))}" + (f"?{urlencode(options)}" if options else "")


def _address(text: str) -> _Address:
    """HOST[:PORT], or a redis:// or rediss:// URL with user, password and database."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        if "://" in text or "@" in text:
            raise ValueError("REDIS_URL must be HOST:PORT, redis://… or rediss://…")
        return _Address(text)
    before, _, after = match[2].rpartition("@")
    target, _, query = after.partition("?")
    host, _, database = target.partition("/")
    name, _, password = before.partition(":")
    options = dict(parse_qsl(query))
    user = _User(unquote(name), unquote(password)).over(_User(options.get("username", ""), options.get("password", "")))
    database = database or options.get("db", "")
    return _Address(host, user, f"/{database}" if database else "", tls=match[1] == "rediss")


def _tls_options(given: RedisVariables) -> dict[str, str]:
    if bool(given.cert) is not bool(given.key):
        raise ValueError("REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY go together")
    options = {"ssl_certfile": given.cert, "ssl_keyfile": given.key, "ssl_ca_certs": given.ca}
    options["ssl_check_hostname"] = "false" if given.skip_hostname else ""
    return {option: value for option, value in options.items() if value}
