"""A closed connection goes at once, without the cycle collector, which `extauth serve` keeps from old objects."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauth.transport import frames
from extauth.transport.frames import END_HEADERS, HEADERS, ErrorCode, frame
from tests.h2 import BLOCK, MESSAGE, START, call, serving


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        START,
        START + call(1) + call(3, b"\xff"),
        START + call(1) + frames.rst_stream(1, ErrorCode.CANCEL),
        START + frame(HEADERS, END_HEADERS, 1, BLOCK),
        START + frame(HEADERS, 0, 1, BLOCK[:20]),
        START + frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}) + call(1),
        START + call(1, MESSAGE * 100)[:-1],
    ],
)
async def test_nothing_holds_a_closed_connection(short_path: Path, sent: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect(start=False)
        peer.send(sent)
        await served.works()
        connections = [weakref.ref(connection) for connection in served.server._connections]
        assert connections
        await peer.close()
        async with asyncio.timeout(10):
            while any(connection() is not None for connection in connections):
                await asyncio.sleep(0.001)
