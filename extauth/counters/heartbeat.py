"""Heartbeats: by them the replicas that share a store know of each other, and of how many they are."""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from fractions import Fraction
from time import monotonic
from typing import Any, NamedTuple, Protocol

from extauth.counters.breaker import BreakerState
from extauth.errors import StoreError

BEAT_S = 3.0
MOST_SEEN_IN_S = 60.0
MAX_FIELD = 280  # characters; a name of 253, and its port
SHARDS_BEFORE = 16
"""The shards of versions that had no setting for them, and do not tell."""

# Later versions may add fields.
_LINE = re.compile(rf"(\w{{1,64}}) \d+ (\S{{1,{MAX_FIELD}}}) (\S+) (\S+) (\S+)(?: (\d{{1,5}})(?!\S))?(?: .*)?")


class Registry(Protocol):
    """Where heartbeats are kept for a few seconds each, in 16 KiB: the store."""

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """Leave the line of a replica, or take it away where `rest` is empty; returns those of the others.

        A line is `ID AT_MS ADDRESS REST`, where the store has put AT_MS in. A `report` of up to 16 KiB is kept beside
        it for as long. Raises StoreError.
        """
        ...

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """The reports of replicas, by their IDs; empty where there is none. Raises StoreError."""
        ...

    def local_host(self) -> str | None:
        """The IP address of this host towards the store, if it has one."""
        ...


class Replica(NamedTuple):
    """What a heartbeat says of its replica."""

    address: str | None
    """HOST:PORT of its gRPC port."""

    version: str
    rules: str
    """The beginning of the hash of its rules."""

    breaker: str
    shards: int = SHARDS_BEFORE
    """EXTAUTH_SHARDS."""


def other_shards(shards: int, others: Iterable[Replica]) -> dict[str, int]:
    """The numbers of shards of replicas that have another number than this one, by their addresses."""
    found = {other.address or "a replica without an address": other.shards for other in others}
    return {address: other for address, other in found.items() if other != shards}


def shards_detail(shards: int, others: Iterable[Replica]) -> dict[str, Any]:
    """What /readyz says of them; nothing where all replicas have one number."""
    differ = other_shards(shards, others)
    return {"shards": shards, "other_shards": sorted(set(differ.values()))} if differ else {}


def read_lines(lines: bytes) -> dict[str, Replica]:
    """The replicas of these heartbeats, by ID; what is none is left out."""
    found = [match for line in lines.decode(errors="replace").split("\n") if (match := _LINE.fullmatch(line))]
    return {
        name: Replica(None if at == "-" else at, version, rules, breaker, int(shards or SHARDS_BEFORE))
        for name, at, version, rules, breaker, shards in map(re.Match.groups, found)
    }


def new_replica() -> str:
    """The ID of a replica that nobody had before."""
    return secrets.token_hex(8)


def worker_name(replica: str, worker: int) -> str:
    """The ID of a replica's worker in heartbeats, from which `replica_of` gets that of the replica, of hex digits."""
    return f"{replica}w{worker}"


def replica_of(name: str) -> str:
    """The ID of the replica to which the heartbeat of this ID belongs."""
    return name.partition("w")[0]


class Heartbeat:
    """The heartbeat of this replica, or of the worker `name` of it.

    `describe` and `report` are called for each; `clock` gives seconds.
    """

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[], Replica],
        report: Callable[[], Awaitable[bytes]] | None = None,
        *,
        name: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._found: dict[str, Replica] = {}
        self._registry = registry
        self._describe = describe
        self._report = report
        self._clock = clock
        self._id = name or new_replica()
        self._seen: deque[tuple[float, int]] = deque()  # instants, with how many counted by themselves

    async def beat(self) -> None:
        """Leave one heartbeat and read those of the others; raises StoreError."""
        own = self._describe()
        rest = " ".join((_field(own.version), _field(own.rules), _field(own.breaker), str(own.shards)))
        address = _field(own.address or "")
        report = b"" if self._report is None else await self._report()
        self._found = read_lines(await self._registry.exchange_heartbeats(self._id, address, rest, report))
        now = self._clock()
        self._seen.append((now, 1 + len(self._found)))
        while self._seen[0][0] < now - MOST_SEEN_IN_S:
            self._seen.popleft()

    @property
    def others(self) -> tuple[Replica, ...]:
        """The other replicas that the last heartbeat found; one of several workers stands for all of them."""
        found = {replica_of(name): self._found[name] for name in reversed(self.reporting)}
        return tuple(reversed(found.values()))

    @property
    def reporting(self) -> list[str]:
        """The IDs of all heartbeats of other replicas: of several workers, each has its own."""
        own = replica_of(self._id)
        return [name for name in self._found if replica_of(name) != own]

    async def read_reports(self) -> list[bytes]:
        """The reports of those in `reporting`, in that order, as of at most BEAT_S ago; raises StoreError."""
        return await self._registry.read_reports(self.reporting)

    async def leave(self) -> None:
        """Have the others know at once that this replica has gone; raises StoreError."""
        await self._registry.exchange_heartbeats(self._id, "-", "")

    async def keep(self, state: Callable[[], BreakerState], beaten: Callable[[StoreError | None], None]) -> None:
        """Beat for ever, while the breaker is closed; `beaten` is called after each with the store's error, if any."""
        while True:
            if state() is BreakerState.CLOSED:
                try:
                    await self.beat()
                except StoreError as error:
                    beaten(error)
                else:
                    beaten(None)
            await asyncio.sleep(BEAT_S)

    def most_seen(self) -> int:
        """The most heartbeats, this one included, in the minute up to the last one; 0 where there was none.

        That many replicas, or workers of them, each count for themselves while the store is away.
        """
        return max((count for _, count in self._seen), default=0)


def automatic_share(seen: int, at_least: int | None) -> Fraction:
    """One over the number of those that count by themselves: the `seen`, itself included, and at least `at_least`."""
    return Fraction(1, max(seen, at_least or 1))


def _field(text: str) -> str:
    """The text as one word."""
    return re.sub(r"\s", "", text)[:MAX_FIELD] or "-"
