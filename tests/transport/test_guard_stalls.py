"""What a client owes, it must do in time; what we owe it may take any time."""

import asyncio
from pathlib import Path

import pytest

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    ErrorCode,
    frame,
)
from tests.support.codes import OVER_LIMIT
from tests.support.h2_peer import BLOCK, START, Answer, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM


STALL = ConnectionLimits(stall_timeout_s=0.1)


@pytest.mark.parametrize("sent", [b"", START[:10], START[:24], START[:26]])
async def test_a_slow_start(short_path: Path, sent: bytes) -> None:
    async with serving(short_path, STALL) as served:
        peer = await served.connect(start=False)
        peer.send(sent)
        assert (await peer.ended())[0] == ErrorCode.SETTINGS_TIMEOUT
        assert served.tripped == [Guard.SLOW_START]
        await served.works()


@pytest.mark.parametrize(
    "sent", [frame(HEADERS, END_HEADERS, 1, BLOCK), frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0, 1, b"\0")]
)
async def test_a_request_that_is_never_finished(short_path: Path, sent: bytes) -> None:
    async with serving(short_path, STALL) as served:
        peer = await served.connect()
        peer.send(sent)
        (answer,) = await peer.answered(1)
        assert answer.code == OVER_LIMIT
        assert served.tripped == [Guard.SLOW_REQUEST]
        peer.send(call(3))
        assert (await peer.answered(3))[0].status == 0


async def test_a_header_block_that_is_never_finished(short_path: Path) -> None:
    async with serving(short_path, STALL) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, 0, 1, BLOCK))
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.SLOW_REQUEST]


async def test_a_window_that_stays_shut(short_path: Path) -> None:
    async with serving(short_path, STALL) as served:
        peer = await served.connect()
        peer.send(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}), call(1))
        await peer.until(lambda: peer.answers.get(1, Answer()).reset is not None)
        assert peer.answers[1].reset == ErrorCode.CANCEL
        assert served.tripped == [Guard.SLOW_READER]


async def test_a_client_that_does_not_read(short_path: Path) -> None:
    limits = ConnectionLimits(stall_timeout_s=0.1, max_control_frames_per_s=1_000_000)
    async with serving(short_path, limits) as served:
        peer = await served.connect()
        peer.send(frame(frames.PING, 0, 0, b"12345678") * 200_000)
        async with asyncio.timeout(20):
            while not served.tripped:
                await asyncio.sleep(0.01)
        assert served.tripped == [Guard.SLOW_READER]
        await served.works()


async def test_calls_wait_for_their_answers_as_long_as_that_takes(short_path: Path) -> None:
    """The stall is the client's debt, never ours."""
    async with serving(short_path, STALL) as served:
        served.counters.open.clear()
        slow = await served.connect()
        slow.send(call(1))
        other = await served.connect(start=False)
        await other.ended()  # the guard has looked at least once
        served.counters.open.set()
        assert (await slow.answered(1))[0].status == 0
