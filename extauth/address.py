"""Addresses to listen on: HOST:PORT, [IPV6]:PORT or unix:PATH."""

import errno
import re
import socket
from ipaddress import IPv6Address, ip_address

_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def check_address(value: str) -> str:
    """HOST:PORT or [IPV6]:PORT, the port 1 to 65535; raises ValueError where it is neither."""
    match = re.fullmatch(r"(?:[^\[\]:/\s]+|\[[0-9a-fA-F:.%\w]+\]):(\d{1,5})", value)
    if not match or not 0 < int(match[1]) < 65536:
        raise ValueError
    return value


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def reachable_address(listen: str, local_host: str | None) -> str | None:
    """Where other hosts reach what listens on `listen`; None on a Unix socket, or where only this host does.

    Of a wildcard, it is `local_host`, an IP address by which this host is known elsewhere.
    """
    if listen.startswith("unix:"):
        return None
    host, port = split_address(listen)
    try:
        address = ip_address(host)
    except ValueError:
        return None if host == "localhost" or host.endswith(".localhost") else listen
    if address.is_unspecified:
        if local_host is None:
            return None
        address = ip_address(local_host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
    # Outside of its link, or with another name for that, a link-local address is nobody's.
    if address.is_loopback or address.is_link_local:
        return None
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def plain_host(host: str) -> str | bytes:
    """The host as `socket.getaddrinfo` is to be given it: bytes, unless it has letters beyond ASCII.

    For text, Python loads the tables of international names, which take half a megabyte, and most hosts need none.
    """
    return host.encode() if host.isascii() else host


def listen_on(address: str, backlog: int) -> list[socket.socket]:
    """Sockets that listen on the address, or on each address of its name; raises OSError or UnicodeError."""
    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        listeners = [listener]
        try:
            listener.bind(address[5:])
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    else:
        host, port = split_address(address)
        listeners = [listen_everywhere(port, backlog)] if host == "::" else _listen_on_all(host, port, backlog)
    for listener in listeners:
        listener.setblocking(False)
    return listeners


def _listen_on_all(host: str, port: int, backlog: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing: OSError | None = None  # `localhost` includes ::1 even without IPv6
    try:
        found = socket.getaddrinfo(plain_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in dict.fromkeys(found):
            try:
                listeners.append(socket.create_server(where[:2], family=family, backlog=backlog))
            except OSError as error:
                if family != socket.AF_INET6 or error.errno not in _NO_IPV6:
                    raise
                missing = error
        if missing is not None and not listeners:
            raise missing
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


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
    return socket.create_server(("0.0.0.0", port), backlog=backlog)  # noqa: S104 - the operator asked for it
