"""What is wrong with a Redis URL, said without its password: no message shows a value, or what may be part of one."""

import re
from urllib.parse import urlsplit

from extauth.counters.redis.cluster.url import SCHEMES as CLUSTERS
from extauth.counters.redis.cluster.url import cluster_fault
from extauth.counters.redis.sentinel_url import SCHEMES, sentinel_fault
from extauth.counters.redis.url_parts import HOST, authority_fault, options_fault, unescaped

_SEVERAL = (
    "it names several hosts: give one, at which the master is, or redis+sentinel:// and its sentinels, or "
    "redis+cluster:// and nodes of a cluster"
)
_FORMS = (
    "it must begin with redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, "
    "rediss+cluster:// or unix://, or be memory:"
)


def fault(url: str) -> str:  # noqa: PLR0911 - a fault each
    """What is wrong with the URL and what would mend it; nothing where it will do. `memory:` names no Redis."""
    if url != url.strip():
        return "it begins or ends with white space, such as a line break: remove it"
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "it holds white space or a control character: write a space as %20"
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon:
        return "nothing may follow memory:" if rest else ""
    if scheme not in {"redis", "rediss", "unix", *SCHEMES, *CLUSTERS} or (
        scheme != "unix" and not rest.startswith("//")
    ):
        return _FORMS
    rest = rest.removeprefix("//")
    if scheme in SCHEMES:
        return sentinel_fault(rest, tls=scheme.startswith("rediss"))
    if scheme in CLUSTERS:
        return cluster_fault(rest, tls=scheme.startswith("rediss"))
    found = _socket_fault(rest) if scheme == "unix" else _host_fault(rest)
    if found:
        return found
    if "#" in rest:
        return "it holds a #: write it as %23"
    try:
        query = urlsplit(url).query
    except ValueError:
        return "the user or password holds a character that must be escaped: write all but letters and digits so"
    return options_fault(query, tls=scheme == "rediss")


def _host_fault(rest: str) -> str:
    """Of what follows `redis://`."""
    address = rest.partition("?")[0]
    # Unless an address ends there, the ? is one of a password's, and the @ that counts comes after it.
    whole = address if re.fullmatch(rf"(?:[^/@#]*@)?{HOST}(?::[0-9]*)?(?:/[0-9]*)?", address) else rest
    before, at, after = whole.rpartition("@")
    if re.search("@[^@,;]+:[0-9]+[,;]", before):
        return _SEVERAL
    if at and (escape := unescaped(before)):
        return escape
    authority, slash, db = after.partition("?")[0].partition("/")
    if re.search("[,;]", authority):
        return _SEVERAL
    if not authority or authority.startswith(":"):
        return "it names no host" + ("" if at else "; a user and password end in an @ before it")
    if wrong := authority_fault(authority):
        return wrong + (", and a user and password end in an @" if "port" in wrong and not at else "")
    return (
        "after the host may come only /DB, a number" if slash and not re.fullmatch("[0-9]{0,9}", db, re.ASCII) else ""
    )


def _socket_fault(rest: str) -> str:
    """Of what follows `unix:` or `unix://`."""
    path = rest.partition("?")[0]
    if not path.startswith("/"):
        before, at, path = rest.rpartition("@")
        if at and (escape := unescaped(before)):
            return escape
        path = path.partition("?")[0]
    return (
        "" if re.fullmatch("/[^/].*", path) else "the socket's path must begin with a /, as in unix:///run/redis.sock"
    )
