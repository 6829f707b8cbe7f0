"""Addresses to listen on: HOST:PORT or [IPV6]:PORT."""

import errno
import socket

_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def listen_everywhere(port: int, backlog: int) -> socket.socket:
    """A socket on all addresses of both families, or of IPv4 alone where this machine has no IPv6; raises OSError.

    What asyncio makes of `::` listens on IPv6 alone.
    """
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=backlog)  # noqa: S104 - as was asked for
