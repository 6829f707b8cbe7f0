"""How the name of Redis becomes addresses: by look-ups that may hang, and of which none holds up the next."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from extauth.counters.redis.counters import RedisCounters
from extauth.counters.redis.lookup import MOST_RUNNING, AddressLookup
from extauth.errors import StoreError
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.stores import Store
from tests.support.wait import until_async

NAME = "store.test"  # RFC 6761 §6.2: no resolver knows it
Found = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...]]]


class Resolver:
    """Takes the place of the system's for NAME; the first `hanging` look-ups end once the test does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = ["127.0.0.1"]
        self.hanging = 0
        self.asked = 0
        self._over = threading.Event()
        self._system = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str | bytes, port: int, family: int = 0, *rest: int, **named: int) -> object:
        if host != NAME.encode() or named.get("flags"):
            return self._system(host, port, family, *rest, **named)
        self.asked += 1
        if self.asked <= self.hanging:
            self._over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for each in self.addresses for found in self._system(each, port, type=socket.SOCK_STREAM)]

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver(monkeypatch)
    yield resolver
    resolver.end()


async def probe(url: str) -> None:
    counters = RedisCounters(url, 10)
    try:
        await counters.probe()
    finally:
        await counters.aclose()


async def test_a_look_up_that_hangs_is_given_up_for_a_new_one(resolver: Resolver, own_store: Store) -> None:
    resolver.hanging = 1
    async with Proxy(free_port(), own_store.socket) as proxy:
        await probe(f"redis://{NAME}:{proxy.address}")
    assert resolver.asked == 2


async def test_each_address_is_tried_in_turn(resolver: Resolver, own_store: Store) -> None:
    resolver.addresses = ["127.0.0.9", "::1", "127.0.0.1"]
    async with Proxy(free_port(), own_store.socket) as proxy:
        await probe(f"redis://{NAME}:{proxy.address}")
        assert proxy.connections == 1


async def test_an_error_names_each_address_that_was_tried(resolver: Resolver) -> None:
    resolver.addresses = ["127.0.0.9", "127.0.0.8"]
    with pytest.raises(StoreError, match=rf"{NAME}:\d+.*127\.0\.0\.9.*127\.0\.0\.8") as raised:
        await probe(f"redis://{NAME}:{free_port()}")
    assert raised.value.kind == "connection"


async def test_a_name_that_is_unknown_is_an_error_at_once(resolver: Resolver) -> None:
    resolver.addresses = []
    with pytest.raises(StoreError, match="Name or service not known"):
        await probe(f"redis://{NAME}:1")
    assert resolver.asked == 1


async def test_an_address_is_looked_up_by_nobody(resolver: Resolver, own_store: Store) -> None:
    resolver.hanging = 99
    async with Proxy(free_port(), own_store.socket) as proxy:
        await probe(f"redis://127.0.0.1:{proxy.address}")
    assert (await AddressLookup().addresses("::1", 1), resolver.asked) == (["::1"], 0)


@pytest.mark.parametrize(("certified", "counts"), [(NAME, True), ("127.0.0.1", False)])
async def test_a_certificate_must_name_the_host_and_not_its_address(
    resolver: Resolver, own_store: Store, tmp_path: Path, certified: str, counts: bool
) -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert(certified).configure_cert(tls)
    async with Proxy(free_port(), own_store.socket, tls=tls) as proxy:
        url = f"rediss://{NAME}:{proxy.address}/?ssl_ca_certs={tmp_path / 'ca.pem'}"
        if counts:
            await probe(url)
        else:
            with pytest.raises(StoreError, match="certificate"):
                await probe(url)
    assert resolver.asked == 1


async def test_look_ups_that_hang_are_so_many_and_no_more(resolver: Resolver) -> None:
    resolver.hanging = 2 * MOST_RUNNING
    lookup = AddressLookup(renew_s=0.001)
    waiting = asyncio.create_task(lookup.addresses(NAME, 1))

    async def as_many_as_may_are_running() -> bool:
        return lookup.running == resolver.asked == MOST_RUNNING

    await until_async(as_many_as_may_are_running)
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert (done, resolver.asked) == (set(), MOST_RUNNING)
    resolver.hanging = 0
    resolver.end()
    await asyncio.gather(waiting, return_exceptions=True)  # it may have been the newest that failed
    assert await lookup.addresses(NAME, 1) == ["127.0.0.1"]
