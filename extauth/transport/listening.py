"""The sockets of the gRPC port, or of its Unix socket."""

import socket
from pathlib import Path
from typing import Final

from extauth.address import listen_on
from extauth.errors import SettingsError

BACKLOG: Final = 1024


def open_port(listen: str) -> list[socket.socket]:
    """Listen on HOST:PORT or unix:PATH; raises SettingsError if the address is not available."""
    try:
        clear_socket(listen)
        return listen_on(listen, BACKLOG)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        reason = getattr(error, "strerror", None) or error
        message = f"EXTAUTH_GRPC_LISTEN={listen}: cannot listen there: {reason}"
        raise SettingsError(message) from error


def clear_socket(listen: str) -> None:
    """Remove a Unix socket on which no server listens any more; raises OSError if one does."""
    kind, _, path = listen.partition(":")
    if kind != "unix":
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError:
            return
        else:
            raise OSError(None, "another server listens there")
