"""An Envoy with a config of its own, without the rest of the stack."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from scripts.stack import programs


@contextmanager
def started(config: str, ports: Mapping[int, int], folder: Path) -> Iterator[None]:
    """Run it, with these ports in place of the config's own."""
    for port, free in ports.items():
        config = config.replace(f"port_value: {port}", f"port_value: {free}")
    path = folder / "envoy.yaml"
    path.write_text(config)
    argv: list[str | Path] = [programs.envoy(), "-c", path, "--use-dynamic-base-id", "--log-level", "error"]
    with (folder / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield
    finally:
        envoy.terminate()
        envoy.wait(20)


async def ask(edge: str, path: str, headers: Mapping[str, str]) -> tuple[int, int]:
    """One request: its status, and what is left of the limit before its cost is known; -1 where nothing says so."""
    async with aiohttp.ClientSession(edge) as session, session.get(path, headers=headers) as response:
        return response.status, int(response.headers.get("x-ratelimit-remaining", "-1"))


async def answers(edge: str, path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request gets 200."""
    try:
        return (await ask(edge, path, headers))[0] == 200
    except aiohttp.ClientConnectionError:
        return False
