"""Counts and answers of `extauth serve` in compatible mode, by one process and by several workers."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry
from tests.integration.worker_service import Client, connected
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import call
from tests.support.process import Served, served_with
from tests.support.stores import Store
from tests.support.wait import until_async

CONFIG = """
domain: d
descriptors:
  - {key: two, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: ten, value: "1.2.3.4", rate_limit: {unit: year, requests_per_unit: 10}}
"""
COMPATIBLE = {"EXTAUTH_COMPATIBLE": "true", "EXTAUTH_STATSD_INTERVAL": "0.2", "EXTAUTH_ENGINE": "h2"}
RULES = "ratelimit.service.rate_limit.d."


class Statsd:
    """Takes datagrams at a port of this host."""

    def __init__(self) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.url = f"udp://127.0.0.1:{self.socket.getsockname()[1]}"
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """What the rules have counted so far, without what their names have in common."""
        while True:
            try:
                lines = self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return {name.removeprefix(RULES): hits for name, hits in self._counts.items() if RULES in name}
            for line in lines:
                name, _, rest = line.rpartition(":")
                value, _, kind = rest.partition("|")
                self._counts[name] += int(value) if kind == "c" else 0


@pytest.fixture
def statsd() -> Iterator[Statsd]:
    listener = Statsd()
    yield listener
    listener.socket.close()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_hits_are_sent_to_statsd(own_store: Store, statsd: Statsd, workers: str) -> None:
    with served_with(own_store, CONFIG) as start:
        served: Served = start(**COMPATIBLE, EXTAUTH_STATSD=statsd.url, EXTAUTH_WORKERS=workers)
        served.until_ready()
        async with connected(served, 2) as client:
            codes = await client.ask_all(6, "ten", "1.2.3.4")
            assert sorted(codes) == [OK] * 10 + [OVER_LIMIT] * 2
            expected = {"total_hits": 12, "within_limit": 10, "over_limit": 2, "near_limit": 2}
            await until_async(
                lambda: statsd.counts() == {f"ten_1_2_3_4.{stat}": hits for stat, hits in expected.items()},
                statsd.counts,
                every_s=0.05,
            )


async def _codes(client: Client, *hits: int) -> list[int]:
    """The codes of calls for so many hits each, one after the other."""
    (peer,), codes = client.peers, []
    for stream, each in enumerate(hits):
        message = encode_request("d", [Descriptor((Entry("two", "x"),), hits_addend=each)])
        peer.send(call(1 + 2 * stream, message))
        (answer,) = await peer.answered(1 + 2 * stream)
        codes.append(answer.code)
    return codes


@pytest.mark.parametrize(("compatible", "passing"), [("true", 3), ("false", 2)])
async def test_a_peek_means_what_it_means_there(own_store: Store, compatible: str, passing: int) -> None:
    with served_with(own_store, CONFIG) as start:
        served = start(EXTAUTH_COMPATIBLE=compatible)
        served.until_ready()
        async with connected(served, 1) as client:
            codes = await _codes(client, 0, 1, 0, 1, 0, 1, 0)
    assert codes[::2] == [OK] * passing + [OVER_LIMIT] * (4 - passing)


async def test_denials_are_remembered_and_no_longer_counted(own_store: Store, statsd: Statsd) -> None:
    with served_with(own_store, CONFIG) as start:
        settings = COMPATIBLE | {"EXTAUTH_REMEMBER_DENIALS": "true", "EXTAUTH_STATSD": statsd.url}
        served = start(**settings)
        served.until_ready()
        async with connected(served, 1) as client:
            codes = [await client.ask(client.peers[0], "two") for _ in range(30)]
        assert codes == [OK] * 2 + [OVER_LIMIT] * 28
        await until_async(
            lambda: statsd.counts().get("two.over_limit_with_local_cache") == 27, statsd.counts, every_s=0.05
        )
        status, text = await asyncio.to_thread(served.get, "/metrics")
    assert (status, 'extauth_decisions_total{source="denial_cache"} 27.0' in text) == (200, True)
