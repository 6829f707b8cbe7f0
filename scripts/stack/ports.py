"""Which TCP ports the parts listen on."""

import contextlib
import random
import socket
from dataclasses import dataclass
from typing import Self

# Below the ports that systems give to outgoing connections: one of those could take a port before its part does.
_FREE_RANGE = range(12000, 32000)


@dataclass(frozen=True, slots=True)
class Replica:
    """The two ports of one extauth."""

    grpc: int
    admin: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Every TCP port of the stack. The store has none: it listens on a unix socket."""

    edge: int
    envoy_admin: int
    envoy_stats: int
    echo: int
    prometheus: int
    extauth: tuple[Replica, ...]

    @classmethod
    def default(cls) -> Self:
        """The documented ports, which envoy/local/ and observability/ name too."""
        return cls(8080, 9901, 9902, 8000, 9090, (Replica(8081, 6070), Replica(8082, 6071)))

    @classmethod
    def free(cls, replicas: int = 2) -> Self:
        """Ports that nobody listens on now."""
        return cls.of(free_ports(5 + 2 * replicas))

    @classmethod
    def of(cls, ports: list[int]) -> Self:
        """These ports; those past the fifth are of replicas, two each."""
        edge, envoy_admin, envoy_stats, echo, prometheus, *pairs = ports
        extauth = tuple(Replica(grpc, admin) for grpc, admin in zip(pairs[::2], pairs[1::2], strict=True))
        return cls(edge, envoy_admin, envoy_stats, echo, prometheus, extauth)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(_FREE_RANGE, len(_FREE_RANGE)):
        if not is_taken("0.0.0.0", port):  # noqa: S104 - free on every address, so on the one that is used
            found.append(port)
        if len(found) == count:
            break
    return found


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens on the port.

    Binding alone does not tell on macOS, where a wildcard may be bound beside a loopback address in use.
    """
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
