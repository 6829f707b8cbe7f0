"""URLs of a Redis Cluster: `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…[?OPTIONS]`.

One node is enough; with several, one of them may be away at the start. All nodes have the same user and password.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from extauth.counters.redis.server import Address
from extauth.counters.redis.url_parts import HOST, authority_fault, options_fault, unescaped

SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
DEFAULT_PORT: Final = 6379
_EXAMPLE = "as in redis+cluster://a:6379,b:6379,c:6379"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUrl:
    """What such a URL says: the addresses of nodes, and a `redis://` or `rediss://` URL without one."""

    addresses: tuple[Address, ...]
    node_url: str


def cluster_fault(rest: str, *, tls: bool) -> str:
    """What is wrong with what follows `redis+cluster://`, and what would mend it; nothing where it will do."""
    address = rest.partition("?")[0]
    # Unless an address ends there, the ? is one of a password's, and the @ that counts comes after it.
    several = rf"{HOST}(?::[0-9]*)?(?:,{HOST}(?::[0-9]*)?)*"
    whole = address if re.fullmatch(rf"(?:[^/@#]*@)?{several}(?:/[^@#]*)?", address) else rest
    before, at, after = whole.rpartition("@")
    if at and (escape := unescaped(before)):
        return escape
    authorities, slash, path = after.partition("?")[0].partition("/")
    query = rest.partition("?")[2]
    return (
        _nodes_fault(authorities.split(","))
        or (
            "a Redis Cluster has only the database 0: write nothing after the nodes"
            if slash and path not in {"", "0"}
            else ""
        )
        or ("it holds a #: write it as %23" if "#" in rest else "")
        or options_fault(query, tls=tls, secure="rediss+cluster")
        or ("a Redis Cluster has only the database 0: remove the option db" if re.search("(?:^|&)db=", query) else "")
    )


def read_cluster_url(url: str) -> ClusterUrl:
    """Read a URL in which there is no fault."""
    scheme, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    user, at, after = address.rpartition("@")
    authorities = after.partition("/")[0].split(",")
    return ClusterUrl(
        addresses=tuple(map(_address, authorities)), node_url=f"{SCHEMES[scheme]}://{user}{at}node?{query}"
    )


def _nodes_fault(authorities: list[str]) -> str:
    for number, authority in enumerate(authorities, 1):
        if not authority or authority.startswith(":"):
            if len(authorities) == 1:
                return f"it names no node of the cluster: write HOST:PORT of one or more, {_EXAMPLE}"
            return f"node number {number} has no host: write HOST:PORT of each with one comma between, {_EXAMPLE}"
        if wrong := authority_fault(authority, f" of node number {number}"):
            return wrong
    return ""


def _address(authority: str) -> Address:
    port = urlsplit(f"//{authority}").port
    host = authority.removesuffix(":") if port is None else authority.rpartition(":")[0]
    return Address(host.strip("[]"), port or DEFAULT_PORT)
