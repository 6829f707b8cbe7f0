"""URLs of a Redis Cluster: `redis+cluster://[USER:PASSWORD@]HOST[:PORT],…[?OPTIONS]`.

One node is enough; with several, one of them may be away at the start. All nodes have the same user and password.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from extauth.counters.redis.server import Address
from extauth.counters.redis.url_parts import find_hosts, hosts_fault, options_fault, read_hosts

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
    escape, authorities, path = find_hosts(rest, "(?:/[^@#]*)?")
    query = rest.partition("?")[2]
    none = "it names no node of the cluster: write HOST:PORT of one or more"
    return (
        escape
        or hosts_fault(authorities, "node", none, _EXAMPLE)
        or (
            "a Redis Cluster has only the database 0: write nothing after the nodes"
            if path not in {"", "/", "/0"}
            else ""
        )
        or ("it holds a #: write it as %23" if "#" in rest else "")
        or options_fault(query, tls=tls, secure="rediss+cluster")
        or ("a Redis Cluster has only the database 0: remove the option db" if re.search("(?:^|&)db=", query) else "")
    )


def read_cluster_url(url: str) -> ClusterUrl:
    """Read a URL in which there is no fault."""
    scheme, _, rest = url.partition("://")
    user, authorities, _, query = read_hosts(rest)
    return ClusterUrl(addresses=tuple(map(_address, authorities)), node_url=f"{SCHEMES[scheme]}://{user}node?{query}")


def _address(authority: str) -> Address:
    port = urlsplit(f"//{authority}").port
    host = authority.removesuffix(":") if port is None else authority.rpartition(":")[0]
    return Address(host.strip("[]"), port or DEFAULT_PORT)
