"""Listening on every address of the machine, and where others reach that."""

import errno
import socket
from typing import Any

import pytest

from extauth.address import listen_everywhere, listen_on, reachable_address


def test_everywhere_takes_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with listen_everywhere(0, 8) as listening:
        assert listening.family == socket.AF_INET6
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 10).close()


def test_everywhere_is_ipv4_alone_where_the_kernel_has_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen_everywhere(0, 8) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 10).close()


@pytest.mark.parametrize("reason", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_everywhere_is_ipv4_alone_where_no_ipv6_address_can_be_had(
    monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    create_server = socket.create_server

    def without_ipv6(address: tuple[str, int], **options: Any) -> socket.socket:  # noqa: ANN401 - the stdlib's own
        if options.get("family") == socket.AF_INET6:
            raise OSError(reason, "no IPv6")
        return create_server(address, **options)

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with listen_everywhere(0, 8) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


def test_everywhere_fails_where_the_port_is_taken() -> None:
    with listen_everywhere(0, 8) as first, pytest.raises(OSError, match="in use"):
        listen_everywhere(first.getsockname()[1], 8)


@pytest.mark.parametrize(
    ("refused", "taken"),
    [
        ({}, ["127.0.0.3", "127.0.0.1", "127.0.0.2"]),
        ({"::1": errno.EADDRNOTAVAIL}, ["127.0.0.1", "127.0.0.2"]),
        ({"::1": errno.EAFNOSUPPORT}, ["127.0.0.1", "127.0.0.2"]),
        ({"::1": errno.EADDRINUSE}, None),
        ({"127.0.0.2": errno.EADDRNOTAVAIL}, None),
        ({"::1": errno.EADDRNOTAVAIL, "127.0.0.1": errno.EADDRINUSE}, None),
    ],
)
def test_a_name_is_listened_on_at_all_of_its_addresses_but_for_ipv6_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, refused: dict[str, int], taken: list[str] | None
) -> None:
    create_server = socket.create_server

    def getaddrinfo(_host: str, port: int, **_options: int) -> list[Any]:
        ipv6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        ipv4 = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{i}", port)) for i in (1, 2, 2)]
        return [ipv6, *ipv4]

    def stand_in(address: tuple[str, int], **options: Any) -> socket.socket:  # noqa: ANN401 - the stdlib's own
        if address[0] in refused:
            raise OSError(refused[address[0]], "refused")
        return create_server(address if address[0] != "::1" else ("127.0.0.3", 0), backlog=options["backlog"])

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_server", stand_in)
    if taken is None:
        with pytest.raises(OSError, match="refused"):
            listen_on("name:0", 8)
        return
    sockets = listen_on("name:0", 8)
    assert [opened.getsockname()[0] for opened in sockets] == taken
    for opened in sockets:
        assert not opened.getblocking()
        opened.close()


@pytest.mark.parametrize(
    ("listen", "local_host", "address"),
    [
        ("10.0.0.1:8081", "10.9.9.9", "10.0.0.1:8081"),
        ("10.0.0.1:8081", None, "10.0.0.1:8081"),
        ("[fd00::1]:8081", None, "[fd00::1]:8081"),
        ("replica-1.example:8081", None, "replica-1.example:8081"),
        ("0.0.0.0:8081", "10.0.0.1", "10.0.0.1:8081"),
        ("[::]:8081", "10.0.0.1", "10.0.0.1:8081"),
        ("[::]:8081", "::ffff:10.0.0.1", "10.0.0.1:8081"),
        ("[::]:8081", "fd00::1", "[fd00::1]:8081"),
        ("[::]:8081", None, None),
        ("[::]:8081", "::1", None),
        ("[::]:8081", "fe80::1%eth0", None),
        ("0.0.0.0:8081", "127.0.0.1", None),
        ("127.0.0.1:8081", "10.0.0.1", None),
        ("127.1.2.3:8081", None, None),
        ("[::1]:8081", None, None),
        ("localhost:8081", "10.0.0.1", None),
        ("unix:/run/extauth", "10.0.0.1", None),
    ],
)
def test_others_reach_a_replica_where_it_listens_or_by_its_address_towards_the_store(
    listen: str, local_host: str | None, address: str | None
) -> None:
    assert reachable_address(listen, local_host) == address
