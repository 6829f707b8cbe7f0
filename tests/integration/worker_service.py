"""Clients of a service of several workers, and what can be seen of its processes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.h2_peer import START, Peer, call
from tests.support.process import Served


class Client:
    """Connections, on each of which one call is open at a time."""

    def __init__(self, peers: list[Peer]) -> None:
        self.peers = peers
        self._stream = -1

    async def ask(self, peer: Peer, key: str = "wide", value: str = "x") -> int:
        """The code of an answer."""
        self._stream += 2
        peer.send(call(self._stream, encode_request("d", [read_descriptor(f"{key}={value}")])))
        (answer,) = await peer.answered(self._stream)
        return answer.code

    async def ask_all(self, calls: int, key: str = "wide", value: str = "x") -> list[int]:
        """The codes of so many calls on each connection, all connections at a time."""

        async def some(peer: Peer) -> list[int]:
            return [await self.ask(peer, key, value) for _ in range(calls)]

        return [code for codes in await asyncio.gather(*map(some, self.peers)) for code in codes]


@asynccontextmanager
async def connected(served: Served, connections: int) -> AsyncIterator[Client]:
    """So many connections, opened one after the other."""
    client = Client([])
    try:
        for _ in range(connections):
            peer = Peer(*await asyncio.open_unix_connection(served.address.removeprefix("unix:")))
            peer.send(START)
            await peer.until(lambda peer=peer: peer.settings_acks)  # type: ignore[misc]
            client.peers.append(peer)
        yield client
    finally:
        for peer in client.peers:
            await peer.close()


async def page(served: Served, path: str) -> Any:  # noqa: ANN401
    return json.loads((await asyncio.to_thread(served.get, path))[1])


async def samples(served: Served) -> dict[str, dict[tuple[str, ...], float]]:
    """All samples: by the name, by the values of the labels."""
    text = (await asyncio.to_thread(served.get, "/metrics"))[1]
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def events(served: Served, *wanted: str) -> list[dict[str, object]]:
    return [line for line in served.lines() if line["event"] in wanted]


async def spread(served: Served) -> list[float]:
    """The open files of each worker."""
    files = (await samples(served))["process_open_fds"]
    return [files[name] for name in sorted(files) if name != ("parent",)]


def connections_by_worker(served: Served, pids: Iterable[int]) -> list[int]:
    """How many connections of the Unix socket each process has."""
    inodes = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()
        if line.endswith(served.address.removeprefix("unix:"))
    }
    return [sum(_inode(fd) in inodes for fd in Path(f"/proc/{pid}/fd").iterdir()) for pid in pids]


def _inode(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")
    except OSError:
        return ""
