"""Listening on every address of the machine."""

import errno
import socket
from typing import Any

import pytest

from extauth.address import listen_everywhere


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
