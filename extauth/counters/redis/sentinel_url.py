"""URLs of a master that sentinels watch: `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DB][?OPTIONS]`.

User, password, database and options are those of the master, as in `redis://`. The sentinels have options of their
own, which begin with `sentinel_`: `sentinel_username`, `sentinel_password`, `sentinel_ssl`, `sentinel_ssl_…`. Without
`sentinel_ssl` they are reached over TLS where the master is, and the `ssl_…` options hold for them too, as far as they
have none of their own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from extauth.counters.redis.url_parts import SENTINELS, find_hosts, hosts_fault, options_fault, read_hosts

SCHEMES: Final = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
DEFAULT_PORT: Final = 26379
_EXAMPLE = "as in redis+sentinel://a:26379,b:26379,c:26379/mymaster"
_YES = re.compile("1|t|y|true|yes", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelUrl:
    """What such a URL says, as `redis://` or `rediss://` URLs.

    That of the master lacks the address, which the sentinels know. `shown`: by an option's name in the URL of a
    sentinel, the one that the user gave it.
    """

    master: str
    master_url: str
    sentinel_urls: tuple[str, ...]
    shown: Mapping[str, str]


def sentinel_fault(rest: str, *, tls: bool) -> str:
    """What is wrong with what follows `redis+sentinel://`, and what would mend it; nothing where it will do."""
    escape, authorities, path = find_hosts(rest, "(?:/[^/@#]*)+")
    return (
        escape
        or _sentinels_fault(authorities)
        or _path_fault(path.removeprefix("/"))
        or ("it holds a #: write it as %23" if "#" in rest else "")
        or _options_fault(rest, tls=tls)
    )


def read_sentinel_url(url: str) -> SentinelUrl:
    """Read a URL in which there is no fault."""
    scheme, _, rest = url.partition("://")
    user, authorities, path, query = read_hosts(rest)
    name, slash, db = path.partition("/")
    options = parse_qsl(query)
    plain = {name: value for name, value in options if not name.startswith(SENTINELS)}
    tls = _sentinel_tls(rest, tls=scheme.startswith("rediss"))
    own = {name: value for name, value in plain.items() if tls and name.startswith("ssl_")}
    shown = {}
    for given, value in options:
        if given.startswith(SENTINELS) and given != "sentinel_ssl":
            own[given.removeprefix(SENTINELS)] = value
            shown[given.removeprefix(SENTINELS)] = given
    kind = "rediss" if tls else "redis"
    return SentinelUrl(
        master=name,
        master_url=f"{SCHEMES[scheme]}://{user}master{slash}{db}?{urlencode(plain)}",
        sentinel_urls=tuple([f"{kind}://{each}?{urlencode(own)}" for each in map(_with_port, authorities)]),
        shown=shown,
    )


def _options_fault(rest: str, *, tls: bool) -> str:
    sentinel_tls = _sentinel_tls(rest, tls=tls)
    return options_fault(rest.partition("?")[2], tls=tls, secure="rediss+sentinel", sentinel_tls=sentinel_tls)


def _sentinels_fault(authorities: list[str]) -> str:
    if wrong := hosts_fault(authorities, "sentinel", "it names no sentinel: write HOST:PORT of each", _EXAMPLE):
        return wrong
    known = [_with_port(authority).lower() for authority in authorities]
    if len(set(known)) < len(known):
        return "it names a sentinel twice: each has one voice, so name each once"
    return ""


def _path_fault(path: str) -> str:
    name, slash, db = path.partition("/")
    if not name:
        return f"it names no master: after the sentinels comes the name by which they know it, {_EXAMPLE}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return "the master's name may have only letters, digits and . _ -, as a sentinel's configuration has it"
    if slash and not re.fullmatch("[0-9]{0,9}", db, re.ASCII):
        return "after the master's name may come only /DB, a number"
    return ""


def _sentinel_tls(rest: str, *, tls: bool) -> bool:
    given = dict(parse_qsl(rest.partition("?")[2])).get("sentinel_ssl")
    return tls if given is None else _YES.fullmatch(given) is not None


def _with_port(authority: str) -> str:
    port = urlsplit(f"//{authority}").port
    return authority if port is not None else f"{authority.removesuffix(':')}:{DEFAULT_PORT}"
