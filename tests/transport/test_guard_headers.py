"""Header blocks: what Envoy lets through is read, and what is larger is denied or ends the connection."""

from pathlib import Path

import pytest

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import literal, prefixed
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM


def continued(fragment: bytes, times: int) -> bytes:
    return frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, fragment) * times


@pytest.mark.parametrize(
    "sent",
    [
        continued(b"", 129),
        continued(bytes(16_384), 64),
        frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, bytes(16_384)) * 65,
        # Sixteen kilobytes that stand for 64 MB.
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
        + frame(HEADERS, END_HEADERS, 3, BLOCK + b"\xbe" * 16_000),
        frame(HEADERS, 0, 1, BLOCK)
        + frame(CONTINUATION, 0, 1, b"\x82" * 16_384) * 2
        + frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
    ],
    ids=["frames", "bytes", "bytes-at-once", "table", "fields"],
)
async def test_headers_without_end(short_path: Path, sent: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(sent)
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.HEADERS]
        await served.works()


def in_frames(stream: int, head: bytes) -> bytes:
    """A header block in as many frames as it takes."""
    parts = [head[i : i + 16_384] for i in range(0, len(head), 16_384)]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    flags = [0] * (len(parts) - 1) + [END_HEADERS]
    return b"".join(frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts, strict=True))


def indexed(name: bytes, value: bytes) -> bytes:
    """A field that enters the dynamic table (RFC 7541 §6.2.1)."""
    return b"\x40" + literal(name, value)[1:]


@pytest.mark.parametrize(
    ("extra", "verdict"),
    [
        (literal(b"tracestate", b"x" * 16_000), OK),
        (literal(b"tracestate", b"x" * 61_440), OK),
        (b"".join(literal(b"x-%d" % n, b"y" * 600) for n in range(100)), OK),
        (b"".join(literal(b"x-%d" % n, b"y") for n in range(3000)), OK),
        (literal(b"tracestate", b"x" * 131_072), OVER_LIMIT),
        (literal(b"tracestate", b"x" * 1_000_000), OVER_LIMIT),
        (b"".join(literal(b"x-%d" % n, b"") for n in range(4000)), OVER_LIMIT),
    ],
    ids=["16 kB", "60 KiB", "100 headers", "3,000 headers", "128 KiB", "1 MB", "4,000 headers"],
)
async def test_headers_that_envoy_lets_through_are_decided_and_larger_ones_denied(
    short_path: Path, extra: bytes, verdict: int
) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        # What the large block puts into the table, later ones refer to.
        head = BLOCK + indexed(b"a", b"b") + extra
        peer.send(in_frames(1, head), frame(DATA, END_STREAM, 1, prefixed(MESSAGE)))
        peer.send(frame(HEADERS, END_HEADERS, 3, BLOCK + b"\xbe"), frame(DATA, END_STREAM, 3, prefixed(MESSAGE)))
        assert [answer.code for answer in await peer.answered(1, 3)] == [verdict, OK]
        assert served.tripped == ([Guard.HEADERS] if verdict == OVER_LIMIT else [])
        assert served.counters.calls == (1 if verdict == OVER_LIMIT else 2)


async def test_a_header_block_in_parts_within_the_bounds(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        parts = [frame(CONTINUATION, 0, 1, BLOCK[i : i + 1]) for i in range(20)]
        last = frame(CONTINUATION, END_HEADERS, 1, BLOCK[20:])
        peer.send(frame(HEADERS, 0, 1, b""), *parts, last, frame(DATA, END_STREAM, 1, prefixed(MESSAGE)))
        assert (await peer.answered(1))[0].status == 0


async def test_header_blocks_that_stall_are_bounded_together(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        peers = [await served.connect() for _ in range(3)]
        for peer, parts in zip(peers, (3, 2, 2), strict=True):
            peer.send(frame(HEADERS, 0, 1, BLOCK), *(frame(CONTINUATION, 0, 1, bytes(16_000)) for _ in range(parts)))
        assert (await peers[0].ended())[0] == CALM
        await served.works()


@pytest.mark.parametrize("value", [" a=b", "a=b ", "\ta=b", "a=b\t", " "])
async def test_white_space_around_a_header_that_envoy_passes_on_changes_nothing(short_path: Path, value: str) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(call(1, head=block(PATH, ("tracestate", value))))
        assert (await peer.answered(1))[0].code == OK


async def test_a_client_with_a_smaller_table_for_headers_is_told_its_size(short_path: Path) -> None:
    """Envoy's `hpack_table_size: 0`: nghttp2 ends the connection where the first block does not begin so."""
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frames.settings({frames.SETTINGS_HEADER_TABLE_SIZE: 100}), call(1), call(3))
        await peer.answered(1, 3)
        blocks = [payload for kind, _, _, payload in peer.frames if kind == HEADERS]
        assert blocks[0][:1] == b"\x20"
        assert b"\x20" not in [payload[:1] for payload in blocks[1:]]
