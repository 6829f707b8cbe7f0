"""A closed connection goes at once, without the cycle collector, which `extauth serve` keeps from old objects."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extauth.transport.h2 import frames
from extauth.transport.h2.frames import END_HEADERS, HEADERS, ErrorCode, frame
from extauth.transport.h2.protocol import H2Protocol
from extauth.transport.tls import Tls, TlsFiles
from tests.support.h2_peer import BLOCK, MESSAGE, START, call, serving
from tests.transport.test_tls import Authority, write


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])
async def test_nothing_holds_a_connection_whose_tls_handshake_failed(
    short_path: Path, tmp_path: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, made = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem"), []
    write(files, Authority())

    class Watched(H2Protocol):
        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr("extauth.transport.h2.accepting.H2Protocol", Watched)
    async with serving(short_path, tls=Tls(files)) as served:
        for _ in range(5):
            peer = await served.connect(start=False)
            peer.send(sent)
            await peer.close()
        async with asyncio.timeout(10):
            while served.server.count_connections() or any(connection() is not None for connection in made):
                await asyncio.sleep(0.001)
    assert len(made) == 5


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
