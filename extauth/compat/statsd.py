"""Sends the metrics to statsd, or to DogStatsD, under envoyproxy/ratelimit's names.

The client libraries for statsd block where their sockets do, or are no longer kept, so this writes the lines itself. It
never waits for a listener, and holds a bounded number of bytes for it: what was not written yet is only a number, and
goes out with a later flush. What was written when a connection breaks is lost.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from extauth.address import split_address
from extauth.compat import names
from extauth.compat.metrics import ReferenceMetrics, Totals
from extauth.compat.statsd_lines import Line, dogstatsd_lines, statsd_lines
from extauth.errors import SettingsError
from extauth.settings import Settings
from extauth.telemetry import events
from extauth.telemetry.statsd_settings import read_renamings
from extauth.telemetry.tables import PIECE_LINES

MAX_DATAGRAM_BYTES: Final = 1432  # what an Ethernet frame holds of IPv6 and UDP, and a little less
MAX_BUFFER_BYTES: Final = 262_144
CONNECT_TIMEOUT_S: Final = 5
REFUSED_WITHIN_S: Final = 0.1
"""How long it may take until a datagram turns out to have been for nobody."""


def statsd_of(
    settings: Settings, reference: ReferenceMetrics | None, gather: Callable[[], Awaitable[None]] | None = None
) -> "Statsd | None":
    """What sends the metrics as the settings say, if they do; `gather` is awaited before each flush.

    Raises SettingsError where nothing counts under these names.
    """
    if settings.statsd is None:
        return None
    if reference is None:
        raise SettingsError("EXTAUTH_STATSD needs EXTAUTH_COMPATIBLE=true: only then are hits counted by these names")
    tags = dict(pair.split(":") for pair in settings.statsd_tags.split(",") if pair)
    if settings.statsd.startswith("dogstatsd:"):
        line = dogstatsd_lines(tags, read_renamings(settings.statsd_rename))
    else:
        line = statsd_lines(tags)
    return Statsd(settings.statsd, reference, interval_s=settings.statsd_interval, line=line, gather=gather)


class _Connection(asyncio.DatagramProtocol, asyncio.Protocol):
    """A connected socket, until `lost` says why it is none."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.began = asyncio.get_running_loop().time()
        self.lost: str | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - of a stream or of datagrams
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or (str(exc) if exc else "the connection was closed")

    def error_received(self, exc: Exception) -> None:
        self.lost = str(exc)
        self.transport.abort()


class Statsd:
    """Sends what `metrics` have counted since the last flush to `url`, `tcp://HOST:PORT` or `udp://HOST:PORT`.

    It does so every `interval_s` seconds, in lines that `line` makes; with `dogstatsd://HOST:PORT`, in datagrams, too.
    `gather`, if given, is awaited before.
    """

    def __init__(
        self,
        url: str,
        metrics: ReferenceMetrics,
        *,
        interval_s: float = 10,
        line: Line,
        gather: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._scheme, _, self._address = url.partition("://")
        self._metrics = metrics
        self._interval_s = interval_s
        self._line = line
        self._gather = gather
        self._connection: _Connection | None = None
        self._sent = Totals()
        self._left_bytes = self._losses = 0
        self._unreachable = False

    async def keep_sending(self) -> None:
        """Send at each interval, for ever."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self.flush()
        finally:
            self.close()

    @property
    def waiting_bytes(self) -> int:
        """How many bytes were written that the system has not taken yet."""
        return self._connection.transport.get_write_buffer_size() if self._connection is not None else 0

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.transport.abort()

    async def flush(self) -> None:
        """Send what was counted since the last time, as far as somebody listens and reads."""
        if self._gather is not None:
            await self._gather()
        connection = await self._open()
        if connection is None:
            return
        transport = connection.transport
        if self.waiting_bytes >= self._left_bytes > 0:
            connection.lost = "it reads nothing"
            transport.abort()
            self._note(connection.lost)
            return
        for piece in self._changes():
            for at in range(0, len(piece), PIECE_LINES):
                if connection.lost is not None:
                    break
                self._write(transport, [self._line(*each) for each in piece[at : at + PIECE_LINES]])
                await asyncio.sleep(0)
            if connection.lost is not None:
                break
            if self.waiting_bytes > MAX_BUFFER_BYTES:
                break  # the rest has not been read yet, and goes out with the next flush
        self._left_bytes = self.waiting_bytes

    async def _open(self) -> _Connection | None:
        connection = self._connection
        if connection is not None and connection.lost is None:
            if asyncio.get_running_loop().time() - connection.began > REFUSED_WITHIN_S:
                self._note(None)
            return connection
        if connection is not None:
            self._losses += 1
            self._note(connection.lost)
        try:
            self._connection = await asyncio.wait_for(self._connect(), CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            self._connection = None
            self._note(str(error) or "it does not answer")
            return None
        self._left_bytes = 0
        if self._scheme == "tcp":
            self._note(None)  # of datagrams, nobody knows yet
        return self._connection

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        host, port = split_address(self._address)
        if self._scheme != "tcp":
            # Datagrams to an address where nobody listens fail later only: each time, the next address is tried.
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            address = found[self._losses % len(found)][4]
            return (await loop.create_datagram_endpoint(_Connection, remote_addr=(str(address[0]), port)))[1]
        return (await loop.create_connection(_Connection, host, port))[1]

    def _note(self, reason: str | None) -> None:
        """Log that nobody listens, or that somebody does again, once each."""
        if reason is not None and not self._unreachable:
            events.statsd_unreachable(f"{self._scheme}://{self._address}", reason)
        elif reason is None and self._unreachable:
            events.statsd_reached(f"{self._scheme}://{self._address}")
        self._unreachable = reason is not None

    def _write(self, transport: Any, lines: list[bytes]) -> None:  # noqa: ANN401 - of a stream or of datagrams
        if self._scheme == "tcp":
            transport.write(b"".join(lines))
            return
        datagram = b""
        for line in lines:
            if datagram and len(datagram) + len(line) > MAX_DATAGRAM_BYTES:
                transport.sendto(datagram)
                datagram = b""
            datagram += line
        if datagram:
            transport.sendto(datagram)

    def _changes(self) -> Iterator[list[tuple[str, str, str]]]:
        """What `line` makes lines of, in pieces; one counts as sent when the piece after it is asked for, or none."""
        now, before = self._metrics.totals(), self._sent
        self._sent = now
        old = dict(self._metrics.service_stats(before))
        changes = [
            (name, str(value - old.get(name, 0)), "c")
            for name, value in self._metrics.service_stats(now)
            if value != old.get(name, 0)
        ]
        calls = now.requests - before.requests
        if calls > 0:
            # One line stands for all calls: the mean, which was seen so many times.
            mean_ms = (now.seconds - before.seconds) / calls * 1000
            changes.append((names.RESPONSE_TIME, f"{mean_ms:.6f}", f"ms|@{1 / calls:.9g}"))
        yield changes
        for piece, _ in self._metrics.hits.changes():
            yield [(names.statsd_name(*values), str(hits), "c") for values, hits in piece]
