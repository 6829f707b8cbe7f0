"""Connections, streams and calls past their limits, and calls whose own timeout is short."""

import asyncio
from pathlib import Path

import pytest

from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import SWEEP_S, Shed
from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import Status, prefixed
from tests.support.clock import Seconds
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM


async def test_connections_past_the_bound(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_connections=2)) as served:
        first, second = await served.connect(), await served.connect()
        for peer in (first, second):
            peer.send(call(1))
            await peer.answered(1)
        third = await served.connect()
        assert await third.ended() == (CALM, "too many connections")
        assert served.tripped == [Guard.CONNECTIONS]
        assert served.server.count_connections() == 2
        first.send(call(3))
        assert (await first.answered(3))[0].status == 0
        await second.close()
        async with asyncio.timeout(10):
            while served.server.count_connections() == 2:
                await asyncio.sleep(0.001)
        await served.works()


@pytest.mark.parametrize(
    ("policy", "got"), [(OnStoreFailure.ALLOW, 1), (OnStoreFailure.DENY, 2), (OnStoreFailure.ERROR, None)]
)
async def test_calls_past_the_bound_of_streams_get_the_failure_policy(
    short_path: Path, policy: OnStoreFailure, got: int | None
) -> None:
    """Envoy opens as many streams as it likes until SETTINGS have come: a refused stream would be a free pass."""
    async with serving(short_path, ConnectionLimits(max_streams=3), policy=policy) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), call(3), frame(HEADERS, END_HEADERS, 5, BLOCK), call(7), call(9))
        answers = await peer.answered(7, 9)
        if got is None:
            assert [answer.status for answer in answers] == [Status.UNAVAILABLE] * 2
        else:
            assert [answer.code for answer in answers] == [got] * 2
        assert served.shed == [Shed.STREAMS] * 2
        assert not served.tripped
        peer.send(frame(DATA, END_STREAM, 5, prefixed(MESSAGE)))
        served.counters.open.set()
        assert [answer.status for answer in await peer.answered(1, 3, 5)] == [0, 0, 0]
        peer.send(call(11))
        assert (await peer.answered(11))[0].status == 0


async def test_incomplete_calls_past_the_bound_of_streams_are_denied(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_streams=3)) as served:
        peer = await served.connect()
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in (1, 3, 5, 7)))
        (answer,) = await peer.answered(7)
        assert answer.code == OVER_LIMIT
        peer.send(*(frame(DATA, END_STREAM, stream, prefixed(MESSAGE)) for stream in (1, 3, 5, 7)))
        assert [answer.code for answer in await peer.answered(1, 3, 5)] == [OK] * 3


async def test_calls_past_the_bound_of_waiting_ones_get_the_failure_policy(short_path: Path) -> None:
    async with serving(short_path, max_waiting=2) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        await served.asked()
        peer.send(call(3), call(5), call(7))
        (answer,) = await peer.answered(7)
        assert answer.code == OVER_LIMIT
        assert served.shed == [Shed.WAITING_CALLS]
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(1, 3, 5)] == [OK] * 3


async def test_cancelled_calls_take_up_no_room_among_those_that_wait(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, max_waiting=2, clock=clock) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        await served.asked()
        for stream in range(3, 203, 4):
            peer.send(call(stream), call(stream + 2))
            peer.send(*(frames.rst_stream(s, ErrorCode.CANCEL) for s in (stream, stream + 2)))
        peer.send(frame(frames.PING, 0, 0, b"12345678"))
        await peer.until(lambda: peer.pings)
        assert len(served.shed) < 100
        before = len(served.shed)
        clock.now += 2 * SWEEP_S
        peer.send(call(203))
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(1, 203)] == [OK, OK]
        assert len(served.shed) == before


@pytest.mark.parametrize(("policy", "got"), [(OnStoreFailure.ALLOW, 1), (OnStoreFailure.DENY, 2)])
async def test_a_call_that_expires_gets_the_failure_policy(short_path: Path, policy: OnStoreFailure, got: int) -> None:
    """Whether it is being counted or waits in the queue; and the others are not touched."""
    impatient = block(PATH, ("grpc-timeout", "50m"))
    async with serving(short_path, policy=policy) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1, head=impatient), call(3))
        await served.asked()
        peer.send(call(5, head=impatient), call(7, head=impatient), call(9))
        assert [answer.code for answer in await peer.answered(1, 5, 7)] == [got] * 3
        assert not {3, 9} & peer.answers.keys()
        assert served.shed == [Shed.TIMEOUT] * 3
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(3, 9)] == [OK, OK]
        assert served.counters.calls == 3, "of those that waited, the one with time left is counted"


async def test_an_incomplete_call_that_expires_is_denied(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, block(PATH, ("grpc-timeout", "50m"))), frame(DATA, 0, 1, b"\0"))
        (answer,) = await peer.answered(1)
        assert answer.code == OVER_LIMIT
        assert served.tripped == [Guard.SLOW_REQUEST]
        peer.send(call(3))
        assert (await peer.answered(3))[0].code == OK
