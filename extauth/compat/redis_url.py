"""The Redis URL that envoyproxy/ratelimit's variables REDIS_* stand for. No message shows a value."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlencode

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


@dataclass(frozen=True, slots=True)
class _Address:
    """One of the addresses in REDIS_URL, with what else a redis:// URL says."""

    host: str
    user: str
    path: str
    tls: bool


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
    user, path = _user(given.auth) or first.user, first.path
    if kind == "sentinel":
        if any(address.path for address in addresses):
            raise ValueError("REDIS_URL must name no database where REDIS_TYPE is SENTINEL")
        user, path = _user(given.auth), f"/{quote(master, safe='')}"
        # There, a user in the address of a sentinel is the sentinel's.
        options |= _sentinel_options(_user(given.sentinel_auth) or first.user)
    hosts = ",".join(address.host for address in addresses)
    query = f"?{urlencode(options)}" if options else ""
    return f"{scheme}://{user}{hosts}{path}{query}"


def _socket(given: RedisVariables) -> str:
    if given.tls:
        raise ValueError(
            "REDIS_TLS=true cannot be used with a Unix socket: set REDIS_SOCKET_TYPE=tcp, or REDIS_TLS=false"
        )
    name, found, password = given.auth.partition(":")
    options = {"username": name, "password": password} if found else {"password": given.auth}
    options = {option: value for option, value in options.items() if value}
    path = Path(given.url).absolute()
    return f"unix://{quote(str(path))}" + (f"?{urlencode(options)}" if options else "")


def _address(text: str) -> _Address:
    """HOST[:PORT], or a redis:// or rediss:// URL with user, password and database."""
    match = _SCHEME.fullmatch(text)
    if match is None:
        if "://" in text or "@" in text:
            raise ValueError("REDIS_URL must be HOST:PORT, redis://… or rediss://…")
        return _Address(text, "", "", tls=False)
    before, _, after = match[2].rpartition("@")
    host, slash, rest = after.partition("/")
    database = rest.partition("?")[0]
    name, colon, password = before.partition(":")
    user = _quoted(unquote(name), unquote(password)) if colon else _quoted("", unquote(name))
    return _Address(host.partition("?")[0], user, f"{slash}{database}" if database else "", tls=match[1] == "rediss")


def _user(auth: str) -> str:
    """What stands before the host for PASSWORD or USER:PASSWORD."""
    name, found, password = auth.partition(":")
    return _quoted(name, password) if found else _quoted("", auth)


def _quoted(name: str, password: str) -> str:
    return f"{quote(name, safe='')}:{quote(password, safe='')}@" if name or password else ""


def _sentinel_options(user: str) -> dict[str, str]:
    name, _, password = user.removesuffix("@").partition(":")
    options = {"sentinel_username": unquote(name), "sentinel_password": unquote(password)}
    return {option: value for option, value in options.items() if value}


def _tls_options(given: RedisVariables) -> dict[str, str]:
    if bool(given.cert) is not bool(given.key):
        raise ValueError("REDIS_TLS_CLIENT_CERT and REDIS_TLS_CLIENT_KEY go together")
    options = {"ssl_certfile": given.cert, "ssl_keyfile": given.key, "ssl_ca_certs": given.ca}
    options["ssl_check_hostname"] = "false" if given.skip_hostname else ""
    return {option: value for option, value in options.items() if value}
