"""Whom the gRPC port lets in, and who has to go where room is short."""

import asyncio
import gc
import resource
import ssl
import tracemalloc
from functools import partial
from pathlib import Path
from time import monotonic

import grpc
import grpc.aio
import pytest

from extauth.rls.request import SERVICE
from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2.accepting import LOOK_EVERY_S
from extauth.transport.h2.connection import IDLE_S, START_S
from extauth.transport.h2.frames import PING, ErrorCode, frame
from extauth.transport.tls import Tls, TlsFiles
from tests.support.clock import Seconds
from tests.support.h2_peer import BLOCK, MESSAGE, START, Peer, Serving, block, call, serving
from tests.support.ports import free_port
from tests.support.process import Served
from tests.support.stores import Store
from tests.support.wait import until_async
from tests.transport.test_tls import Authority, write


async def asked(served: Serving) -> Peer:
    """A new connection, of which one call was answered."""
    peer = await served.connect()
    peer.send(call(1))
    assert (await peer.answered(1))[0].status == 0
    return peer


async def greeted(served: Serving) -> Peer:
    """A new connection without a call."""
    peer = await served.connect()
    peer.send(frame(PING, 0, 0, b"........"))
    await peer.until(partial(len, peer.pings))
    return peer


async def test_the_connection_without_calls_for_longest_makes_room(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, ConnectionLimits(max_connections=8), clock=clock) as served:
        peers = []
        for _ in range(6):
            clock.now += 0.1
            peers.append(await asked(served))
        busy = await served.connect()
        served.counters.open.clear()
        busy.send(call(1))
        await served.asked()
        clock.now += IDLE_S
        assert served.tripped == []
        newest = await served.connect()
        await peers[0].until(lambda: peers[0].goaways)
        # Calls on their way are answered yet: it is refused only what comes after the client has heard.
        assert peers[0].goaways[0][:2] == (2**31 - 1, ErrorCode.NO_ERROR)
        served.counters.open.set()
        peers[0].send(call(3))
        assert (await peers[0].answered(3))[0].status == 0
        peers[0].send(frame(PING, 1, 0, peers[0].pings[-1][1]))
        assert (await peers[0].ended())[0] == ErrorCode.NO_ERROR
        assert (await busy.answered(1))[0].status == 0
        newest.send(call(1))
        assert (await newest.answered(1))[0].status == 0
        assert served.tripped == [Guard.IDLE]
        assert not any(peer.goaways for peer in peers[1:])


async def test_no_more_are_ended_than_there_is_need_for(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, ConnectionLimits(max_connections=64), clock=clock) as served:
        for _ in range(54):
            await asked(served)
        clock.now += IDLE_S
        for _ in range(7):  # room is short from the 57th on, and those that are told to go take a while
            clock.now += LOOK_EVERY_S
            await asked(served)
        assert served.tripped == [Guard.IDLE] * (54 + 7 - 56)


async def test_clients_that_only_connect_keep_nobody_out(short_path: Path) -> None:
    """Not even for a moment, although none of them has been unused for long."""
    clock = Seconds()
    async with serving(short_path, ConnectionLimits(max_connections=16), clock=clock) as served:
        honest = await asked(served)
        health = await served.connect()
        health.send(call(1, b"", block("/grpc.health.v1.Health/Check")))
        assert (await health.answered(1))[0].status == 0
        greeters = [await greeted(served) for _ in range(14)]
        newer = [await asked(served) for _ in range(10)]
        greeters += [await greeted(served) for _ in range(20)]
        newer += [await asked(served) for _ in range(3)]
        for peer in (honest, health, *newer):
            peer.send(call(3))
            assert (await peer.answered(3))[0].status == 0
        assert await greeters[0].ended() == (ErrorCode.NO_ERROR, "shutting down")
        assert set(served.tripped) == {Guard.IDLE}
        assert served.server.count_connections() == 16


async def test_those_without_an_answer_yet_go_first(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, ConnectionLimits(max_connections=8), clock=clock) as served:
        idle = [await asked(served) for _ in range(3)]
        clock.now += IDLE_S
        greeters = []
        for _ in range(4):
            clock.now += 0.1
            greeters.append(await greeted(served))
        clock.now += START_S
        newest = await asked(served)
        await greeters[0].ended()
        for peer in (*idle, newest):
            peer.send(call(3))
            assert (await peer.answered(3))[0].status == 0
            assert not peer.goaways


async def test_connections_that_have_not_begun_make_room(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_connections=8)) as served:
        honest = await asked(served)
        silent = [await served.connect(start=False) for _ in range(3)]
        half = [await served.connect(start=False) for _ in range(20)]
        for peer in half:
            peer.send(START[:20])
        await served.works()
        assert set(served.tripped) == {Guard.IDLE}
        honest.send(call(3))
        assert (await honest.answered(3))[0].status == 0
        assert (await silent[0].reader.read()) == b""


async def test_connections_in_use_are_not_ended(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_connections=8)) as served:
        peers = [await asked(served) for _ in range(8)]
        turned_away = await served.connect()
        assert await turned_away.ended() == (ErrorCode.ENHANCE_YOUR_CALM, "too many connections")
        for peer in peers:
            peer.send(call(3))
            assert (await peer.answered(3))[0].status == 0
        assert served.tripped == [Guard.CONNECTIONS]


async def test_tls_handshakes_count_from_the_first(short_path: Path, tmp_path: Path) -> None:
    authority, files = Authority(), TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(files, authority)
    async with serving(short_path, ConnectionLimits(max_connections=16), tls=Tls(files)) as served:
        context = ssl.create_default_context(cadata=authority.pem.decode())
        context.set_alpn_protocols(["h2"])

        async def connect() -> Peer:
            peer = await served.connect(tls=context)
            peer.send(call(1))
            assert (await peer.answered(1))[0].status == 0
            return peer

        honest = await connect()
        silent = [await served.connect(start=False) for _ in range(30)]
        half = [await served.connect(start=False) for _ in range(30)]
        for peer in half:
            peer.send(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        await until_async(lambda: len(served.tripped) == 60 - 15)
        assert set(served.tripped) == {Guard.IDLE}
        assert served.server.count_connections() == 16
        honest.send(call(3))
        assert (await honest.answered(3))[0].status == 0

        others = [await connect() for _ in range(4)]
        assert set(served.tripped) == {Guard.IDLE}
        for peer in (honest, *others, *silent, *half):
            await peer.close()
        await until_async(lambda: not served.server.count_connections())


async def test_tls_clients_that_say_nothing_are_ended_in_time(short_path: Path, tmp_path: Path) -> None:
    authority, files = Authority(), TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write(files, authority)
    async with serving(short_path, ConnectionLimits(stall_timeout_s=0.3), tls=Tls(files)) as served:
        silent, half = await served.connect(start=False), await served.connect(start=False)
        half.send(b"\x16\x03\x01\x02\x00\x01")
        for peer in (silent, half):
            assert await asyncio.wait_for(peer.reader.read(), 20) == b""
        await until_async(lambda: not served.server.count_connections())
        assert served.tripped == [Guard.SLOW_START]


async def test_an_idle_connection_keeps_little_memory(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth.transport.h2.connection.SHRINK_S", 0)
    peers_number, streams = 8, 700
    async with serving(short_path, ConnectionLimits(stall_timeout_s=0.4)) as served:
        warm = await asked(served)
        gc.collect()
        tracemalloc.start()
        peers = [await served.connect() for _ in range(peers_number)]
        for peer in peers:
            numbers = range(1, 2 * streams, 2)
            served.counters.open.clear()
            peer.send(*(call(n, MESSAGE, BLOCK + b"\x00\x01x" + _string(f"{n}-" + "v" * 1500)) for n in numbers))
            served.counters.open.set()
            await peer.answered(*numbers)
            peer.answers.clear()
            peer.frames.clear()
        filters = [tracemalloc.Filter(inclusive=True, filename_pattern="*/transport/h2/*.py")]
        deadline = monotonic() + 20
        while (kept := _kept(filters) / peers_number) > 16_384:
            assert monotonic() < deadline, kept
            await asyncio.sleep(0.05)
        tracemalloc.stop()
        warm.send(call(3))
        assert (await warm.answered(3))[0].status == 0


def _kept(filters: list[tracemalloc.Filter]) -> int:
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(filters).traces)


def _string(text: str) -> bytes:
    """RFC 7541 §5.2, without Huffman, of at least 127 bytes."""
    rest, out = len(text) - 127, bytearray((127,))
    while rest >= 128:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes(out) + bytes((rest,)) + text.encode()


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_all_descriptors_taken_by_idle_clients_leave_those_that_are_needed(
    tmp_path: Path, own_store: Store, tls: bool
) -> None:
    """With room for 400 descriptors; the soft limit is lower, and is raised."""
    config = tmp_path / "d.yaml"
    config.write_text("domain: d\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 1}}]")
    port = free_port()
    settings = {"EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{port}", "EXTAUTH_LOG_FORMAT": "json", "EXTAUTH_ENGINE": "h2"}
    authority = Authority()
    if tls:
        write(TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem"), authority)
        settings |= {"EXTAUTH_GRPC_TLS_CERT": f"{tmp_path}/cert.pem", "EXTAUTH_GRPC_TLS_KEY": f"{tmp_path}/key.pem"}
    served = Served(own_store, config, settings=settings, folder=tmp_path, prepare=few_descriptors)
    idle: list[asyncio.StreamWriter] = []
    try:
        await until_async(lambda: "serving" in served.log.read_text(), served.log.read_text)
        for _ in range(600):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            idle.append(writer)
            if not tls:
                writer.write(START)
        options = (("grpc.ssl_target_name_override", "localhost"),)
        channel = (
            grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(authority.pem), options=options)
            if tls
            else None
        )
        assert '"up"' in (await asyncio.to_thread(served.get, "/readyz"))[1]
        assert sorted(str(line["event"]) for line in served.lines()) == [
            "max_connections_lowered",
            "serving",
            "store_up",
        ]
        if channel is not None:  # what is silent for a second makes room
            async with channel:
                ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
                assert await ask(MESSAGE, timeout=20, wait_for_ready=True)
    finally:
        for writer in idle:
            writer.close()
        served.stop()
