"""How a connection ends: what was received is answered, and GOAWAY names the last call that is."""

import asyncio
from functools import partial
from pathlib import Path

import uvloop

from extauth.rls.request import SERVICE
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import (
    END_HEADERS,
    HEADERS,
    MAX_STREAM_ID,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import Status, prefixed
from tests.support.codes import OK
from tests.support.h2_peer import BLOCK, Answer, Peer, block, call, serving


async def test_what_was_received_is_answered_before_the_connection_ends(short_path: Path) -> None:
    """GOAWAY names the last call that gets an answer, so that a client may ask again for those after it."""
    async with serving(short_path) as served:
        peer = await served.connect()
        served.counters.open.clear()
        peer.send(call(1))
        await peer.until(lambda: peer.settings_acks)
        unfinished = frame(HEADERS, END_HEADERS, 5, BLOCK)
        peer.send(call(3), unfinished, frame(frames.PUSH_PROMISE, 0, 1), call(7))
        await peer.until(lambda: peer.goaways)
        assert peer.goaways[0][:2] == (3, ErrorCode.PROTOCOL_ERROR)
        peer.send(call(9))
        served.counters.open.set()
        await peer.ended()
        assert [peer.answers[stream].status for stream in (1, 3)] == [0, 0]
        assert peer.answers[5].reset == ErrorCode.REFUSED_STREAM
        assert served.counters.calls == 2


async def test_going_away_takes_what_comes_until_it_was_heard(short_path: Path) -> None:
    async with serving(short_path) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        await served.asked()
        stopping = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: peer.goaways and peer.pings)
        assert peer.goaways == [(MAX_STREAM_ID, ErrorCode.NO_ERROR, "shutting down")]
        (flags, payload) = peer.pings[0]
        assert flags == 0
        peer.send(call(3), frame(frames.PING, frames.ACK, 0, payload), call(5))
        await peer.until(lambda: len(peer.goaways) == 2)
        assert peer.goaways[1][:2] == (3, ErrorCode.NO_ERROR)
        assert (await peer.answered(5))[0].reset == ErrorCode.REFUSED_STREAM
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(1, 3)] == [OK, OK]
        assert await peer.ended() == (ErrorCode.NO_ERROR, "shutting down")
        await stopping


async def test_idle_connections_go_away_without_delay(short_path: Path) -> None:
    async with serving(short_path) as served:
        peers = [await served.connect() for _ in range(3)] + [await served.connect(start=False)]
        await served.works()
        stopping = asyncio.create_task(served.server.stop(10))
        for peer in peers[:3]:
            await peer.until(partial(len, peer.pings))
            peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]))
            await peer.ended()
        await stopping


async def test_what_comes_with_the_goaways_ping_is_still_read(short_path: Path) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    async with serving(short_path) as served:
        peer = await served.connect()
        await served.works()
        stopping = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: peer.pings)
        peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]), frame(frames.PING, 0, 0, b"12345678"), call(1))
        assert await peer.ended() == (ErrorCode.NO_ERROR, "shutting down")
        assert peer.pings[1:] == [(frames.ACK, b"12345678")]
        assert peer.answers[1].reset == ErrorCode.REFUSED_STREAM
        await stopping
    assert not errors


async def test_the_last_stream_of_goaway_never_grows(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        served.counters.open.clear()
        peer.send(call(1))
        await peer.until(lambda: peer.settings_acks)
        stop = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: peer.pings)
        peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]), call(3), call(5))
        await peer.until(lambda: len(peer.goaways) == 2)
        peer.send(frame(frames.PUSH_PROMISE, 0, 1))
        await peer.until(lambda: len(peer.goaways) == 3)
        served.counters.open.set()
        await peer.ended()
        assert [last for last, _, _ in peer.goaways] == [frames.MAX_STREAM_ID, 1, 1]
        await stop


async def test_health_can_be_watched(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        watch = block("/grpc.health.v1.Health/Watch")
        named = b"\x0a" + bytes((len(SERVICE),)) + SERVICE.encode()
        peer.send(call(1, b"", watch), call(3, b"\x0a\x05other", watch), call(5, named, watch))
        await peer.until(lambda: all(peer.answers.get(stream, Answer()).body for stream in (1, 3, 5)))
        serving_now, unknown, stopping = (prefixed(bytes((8, status))) for status in (1, 3, 2))
        assert [peer.answers[stream].body for stream in (1, 3, 5)] == [serving_now, unknown, serving_now]
        await served.server.drain()
        await peer.until(lambda: all(peer.answers[stream].body == serving_now + stopping for stream in (1, 5)))
        assert peer.answers[3].body == unknown
        peer.send(frames.rst_stream(5, ErrorCode.CANCEL), call(7))
        assert (await peer.answered(7))[0].code == OK
        stop = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: len(peer.pings) == 1)
        peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]))
        await peer.ended()
        assert [peer.answers[stream].status for stream in (1, 3)] == [Status.UNAVAILABLE] * 2
        assert all(":status" not in peer.answers[stream].trailers for stream in (1, 3)), (
            "RFC 9113 §8.1: not in trailers"
        )
        await stop


def _greeted(peer: Peer) -> bool:
    return peer.settings_acks > 0


def test_who_hangs_up_while_the_connection_ends_holds_nobody_up(short_path: Path) -> None:
    """On uvloop, whose closed transports raise."""
    uvloop.run(_hang_up_while_it_ends(short_path))


async def _hang_up_while_it_ends(short_path: Path) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    async with serving(short_path) as served:
        served.counters.open.clear()
        broken, *others = [await served.connect() for _ in range(9)]
        for peer in (broken, *others):
            await peer.until(partial(_greeted, peer))
        for peer in (broken, *others):  # one turn of the loop reads them all: they are one batch
            peer.send(call(1))
        await served.asked()
        assert served.counters.calls == 9
        broken.send(frame(frames.PUSH_PROMISE, 0, 1))
        await broken.until(lambda: broken.goaways)
        await broken.close()
        while served.server.count_connections() > 8:
            await asyncio.sleep(0)
        served.counters.open.set()
        for peer in others:
            assert (await peer.answered(1))[0].code == OK
    assert not errors
