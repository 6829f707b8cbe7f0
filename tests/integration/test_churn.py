"""Connections that come and go leave nothing behind in `extauth serve`."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from extauth.transport.h2.frames import (
    ACK,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    ErrorCode,
    frame,
    rst_stream,
    settings,
)
from tests.support.h2_peer import BLOCK, CONFIG, START, call
from tests.support.process import Served
from tests.support.stores import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CONNECTIONS = 100_000
BATCH = 250  # open at a time, of 1,024 that may be
WARM_UP = 20_000
# The allocator's own doing comes to less than a megabyte, up or down; 42 bytes a connection would be more than this.
TOLERANCE_BYTES = 4 << 20

GOODBYES = [
    START,
    START + call(1),
    START + call(1) + call(3) + rst_stream(3, ErrorCode.CANCEL),
    START + frame(HEADERS, END_HEADERS, 1, BLOCK),  # a body that never comes
    START + frame(HEADERS, 0, 1, BLOCK[:20]),  # a header block that never ends
    START + call(1)[:-5],  # half of a frame
    PREFACE + settings({4: 0})[:11],
    START + settings({4: 0}) + call(1),  # an answer that nothing may be sent of
    START + frame(PING, 0, 1, b"12345678"),  # an error, after which the server closes
    b"",
]
"""What connections send before they are dropped."""


@pytest.fixture
def served(own_store: Store) -> Iterator[Served]:
    config = own_store.folder / "api.yaml"
    config.write_text(CONFIG)
    served = Served(own_store, config, settings={"EXTAUTH_ENGINE": "h2"})
    served.until_ready()
    yield served
    served.stop()


def come_and_go(path: str, number: int) -> None:
    """So many connections, a batch at a time; in each the last one waits for an answer, and so for all before it."""
    kinds = count()
    for _ in range(number // BATCH):
        with ExitStack() as batch:
            for _ in range(BATCH - 1):
                peer = batch.enter_context(socket.socket(socket.AF_UNIX))
                peer.connect(path)
                peer.sendall(GOODBYES[next(kinds) % len(GOODBYES)])
            last = batch.enter_context(socket.socket(socket.AF_UNIX))
            last.settimeout(20)
            last.connect(path)
            last.sendall(START)
            answer = frame(SETTINGS, ACK, 0)
            received = b""
            while answer not in received:
                received += last.recv(4096)


def open_files(served: Served) -> int:
    return len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))


def at_rest(served: Served, files: int) -> int:
    """Resident bytes once no more files are open than `files`: what errs is closed a second late."""
    served.until(lambda: open_files(served) <= files)
    pages = int(Path(f"/proc/{served.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_connections_leave_neither_memory_nor_files_behind(served: Served) -> None:
    path = f"{served.folder}/grpc"
    files = open_files(served)
    come_and_go(path, WARM_UP)
    memory = at_rest(served, files)
    come_and_go(path, CONNECTIONS)
    memory_after = at_rest(served, files)
    assert open_files(served) <= files
    assert memory_after - memory < TOLERANCE_BYTES
    assert served.get("/readyz")[0] == 200
