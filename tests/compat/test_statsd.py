"""What a statsd gets, and what happens where none listens or reads."""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from extauth.compat.hits import Stat, hits_table
from extauth.compat.metrics import ReferenceMetrics
from extauth.compat.statsd import MAX_BUFFER_BYTES, MAX_DATAGRAM_BYTES, Statsd, statsd_of
from extauth.compat.statsd_lines import Line, statsd_lines
from extauth.errors import SettingsError
from extauth.settings import read_settings
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch
from tests.support.ports import free_port
from tests.support.wait import until_async

TOTAL = "ratelimit.service.rate_limit.d.k_v.total_hits"


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Sent:
    """Metrics that are sent to a port of this host."""

    def __init__(self, scheme: str, port: int, line: Line) -> None:
        self.metrics = Metrics()
        self.hits = hits_table()
        reference = ReferenceMetrics(self.metrics, self.hits)
        self.statsd = Statsd(f"{scheme}://127.0.0.1:{port}", reference, line=line)

    def count(self, hits: int, rule: str = "k_v") -> None:
        self.hits.cell("d", rule, Stat.TOTAL_HITS).value += hits


@contextmanager
def sending(scheme: str, port: int, **tags: str) -> Iterator[Sent]:
    sent = Sent(scheme, port, statsd_lines(tags))
    yield sent
    sent.statsd.close()


class Listener:
    """Takes lines; by their names, what was counted, and by theirs, what else came."""

    def __init__(self) -> None:
        self.data = b""
        self.datagrams: list[bytes] = []

    @property
    def counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in self.data.decode().splitlines():
            name, _, rest = line.rpartition(":")
            value, kind = rest.split("|", 1)
            if kind == "c":
                found[name] += int(value)
        return found


@asynccontextmanager
async def listening(scheme: str, port: int) -> AsyncIterator[Listener]:
    listener = Listener()
    loop = asyncio.get_running_loop()
    if scheme == "udp":

        class Datagrams(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                listener.datagrams.append(data)
                listener.data += data

        transport, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", port))
        yield listener
        transport.close()
        return

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65536):
            listener.data += data

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(read, "127.0.0.1", port)
    yield listener
    server.close()
    for writer in writers:
        writer.transport.abort()
    await server.wait_closed()


def test_it_needs_what_counts_under_these_names() -> None:
    assert statsd_of(read_settings({}), None) is None
    with pytest.raises(SettingsError, match="EXTAUTH_STATSD needs EXTAUTH_COMPATIBLE=true"):
        statsd_of(read_settings({"EXTAUTH_STATSD": "udp://127.0.0.1:8125"}), None)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_what_has_changed_is_sent_under_the_names_of_the_reference(scheme: str) -> None:
    port = free_port()
    with sending(scheme, port) as sent:
        async with listening(scheme, port) as listener:
            for hits in (3, 4, 0):
                sent.count(hits)
                await sent.statsd.flush()
            await until_async(lambda: listener.counts[TOTAL] == 7)
            assert listener.counts == {TOTAL: 7, "ratelimit.service.config_load_success": 1}
            assert listener.data.count(TOTAL.encode()) == 2


async def test_response_times_are_one_line_for_all_calls() -> None:
    port = free_port()
    with sending("tcp", port) as sent:
        async with listening("tcp", port) as listener:
            sent.metrics.batch_decided(batch(durations_s=[(0.002, 3), (0.006, 1)]))
            await sent.statsd.flush()
            await until_async(lambda: b"response_time" in listener.data)
    name = re.escape(b"ratelimit_server.ShouldRateLimit.response_time")
    assert re.search(name + rb":3\.000000\|ms\|@0\.25\n", listener.data)
    assert listener.counts["ratelimit_server.ShouldRateLimit.total_requests"] == 4


async def test_tags_are_a_part_of_the_names() -> None:
    port = free_port()
    with sending("tcp", port, zone="a.b:c", app="x") as sent:
        async with listening("tcp", port) as listener:
            sent.count(1)
            await sent.statsd.flush()
            await until_async(lambda: listener.counts[f"{TOTAL}.__app=x.__zone=a_b_c"] == 1)


async def test_a_name_cannot_hold_a_line_of_its_own() -> None:
    port = free_port()
    with sending("tcp", port) as sent:
        async with listening("tcp", port) as listener:
            sent.count(1, "k_x\nother:9|c")
            await sent.statsd.flush()
            await until_async(lambda: b"total_hits" in listener.data)
    assert b"d.k_x_other_9_c.total_hits:1|c\n" in listener.data


async def test_datagrams_fit_a_frame() -> None:
    port = free_port()
    with sending("udp", port) as sent:
        async with listening("udp", port) as listener:
            for i in range(200):
                sent.count(1, f"k_{i}")
            await sent.statsd.flush()
            await until_async(lambda: sum(listener.counts.values()) == 201)
    assert max(map(len, listener.datagrams)) <= MAX_DATAGRAM_BYTES
    assert all(datagram.endswith(b"|c\n") for datagram in listener.datagrams)


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_where_nobody_listens_one_warning_says_so_until_somebody_does(scheme: str) -> None:
    port = free_port()
    with capture_logs() as logs, sending(scheme, port) as sent:

        async def flush_until(holds: Callable[[], bool]) -> None:
            async def flushed() -> bool:
                sent.count(1)
                await sent.statsd.flush()
                return holds()

            await until_async(flushed)

        await flush_until(lambda: len(logs) == 1)
        for _ in range(5):
            await sent.statsd.flush()
        async with listening(scheme, port) as listener:
            await flush_until(lambda: listener.counts[TOTAL] > 0 and len(logs) > 1)
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("statsd_unreachable", "warning"),
        ("statsd_reached", "info"),
    ]


async def test_what_nobody_took_is_sent_once_somebody_listens() -> None:
    port = free_port()
    with capture_logs(), sending("tcp", port) as sent:
        for _ in range(3):
            sent.count(1)
            await sent.statsd.flush()
        async with listening("tcp", port) as listener:
            await sent.statsd.flush()
            await until_async(lambda: listener.counts[TOTAL] == 3)


async def test_a_listener_that_reads_nothing_is_waited_for_neither_in_time_nor_in_memory() -> None:
    port, name = free_port(), "x" * 300
    with capture_logs() as logs, sending("tcp", port) as sent, socket.create_server(("127.0.0.1", port)):
        sizes = []

        async def flushed() -> bool:
            for i in range(3000):
                sent.count(1, f"k_{i}_{name}")
            await asyncio.wait_for(sent.statsd.flush(), 10)
            sizes.append(sent.statsd.waiting_bytes)
            return bool(logs)

        await until_async(flushed)
        assert [log["event"] for log in logs] == ["statsd_unreachable"]
        assert 0 < max(sizes) < MAX_BUFFER_BYTES + 2000 * 500, "a piece is written whole"
