"""Floods and stalls cost the attacker: each guard ends them with the right code, is counted, and harms nobody else."""

import asyncio
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from extauth.transport import frames
from extauth.transport.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.grpc import Status, literal, prefixed
from extauth.transport.guards import Bounds, Guard
from tests.h2 import BLOCK, MESSAGE, PATH, START, Answer, block, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM
ONE = (1).to_bytes(4, "big")


def resets(n: int) -> bytes:
    """Streams that are cancelled as soon as they are opened."""
    return b"".join(call(s) + frames.rst_stream(s, ErrorCode.CANCEL) for s in range(1, 2 * n, 2))


def provoked(n: int) -> bytes:
    """Streams that the server is made to reset (CVE-2025-8671)."""
    return b"".join(call(s) + frames.window_update(s, 0) for s in range(1, 2 * n, 2))


def on_an_open_stream(payload: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda n: frame(HEADERS, END_HEADERS, 1, BLOCK) + payload(n)


@pytest.mark.parametrize(
    ("flood", "guard"),
    [
        (resets, Guard.RESETS),
        (provoked, Guard.RESETS),
        (lambda n: frame(frames.SETTINGS, 0, 0) * n, Guard.CONTROL_FRAMES),
        (lambda n: frame(frames.SETTINGS, frames.ACK, 0) * n, Guard.CONTROL_FRAMES),
        (lambda n: frame(frames.PING, 0, 0, b"12345678") * n, Guard.CONTROL_FRAMES),
        (lambda n: frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0") * n, Guard.CONTROL_FRAMES),
        (lambda n: frames.window_update(0, 1) * n, Guard.CONTROL_FRAMES),
        (lambda n: frame(77, 0, 0) * n, Guard.CONTROL_FRAMES),
        (lambda n: frame(frames.GOAWAY, 0, 0, bytes(8)) * n, Guard.CONTROL_FRAMES),
        (on_an_open_stream(lambda n: frame(DATA, 0, 1) * n), Guard.CONTROL_FRAMES),
        (on_an_open_stream(lambda n: frame(DATA, frames.PADDED, 1, b"\x09" + bytes(9)) * n), Guard.CONTROL_FRAMES),
        (
            lambda n: frame(HEADERS, END_HEADERS, 1, block("/x")) + frame(HEADERS, END_HEADERS, 1, BLOCK) * n,
            Guard.CONTROL_FRAMES,
        ),
    ],
)
async def test_a_flood_of_frames(short_path: Path, flood: Callable[[int], bytes], guard: Guard) -> None:
    control = 10 if guard is Guard.CONTROL_FRAMES else 1000
    bounds = Bounds(max_resets_per_s=10, max_control_frames_per_s=control, max_streams=10_000)
    async with serving(short_path, bounds) as served:
        peer = await served.connect()
        peer.send(flood(97), frame(frames.PING, 0, 0, b"the last"))  # with SETTINGS at the start, 99
        await peer.until(lambda: (frames.ACK, b"the last") in peer.pings)
        assert not served.tripped
        peer = await served.connect()
        peer.send(flood(250))
        code, _ = await peer.ended()
        assert code == CALM
        assert served.tripped == [guard]
        await served.works()


async def test_a_reset_before_it_is_counted_costs_no_count(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(resets(50), call(101))
        (answer,) = await peer.answered(101)
        assert answer.status == 0
        assert served.counters.calls == 1
        assert set(peer.answers) == {101}


async def test_who_has_work_done_may_send_as_many_window_updates(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_control_frames_per_s=1)) as served:
        peer = await served.connect()
        for stream in range(1, 401, 2):
            peer.send(call(stream), frames.window_update(0, 100))
            await peer.answered(stream)
        assert not served.tripped


def continued(fragment: bytes, times: int) -> bytes:
    return frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, fragment) * times


@pytest.mark.parametrize(
    "sent",
    [
        continued(b"", 33),
        continued(bytes(1000), 17),
        frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, bytes(16_000)) * 2,
        frame(HEADERS, END_HEADERS, 1, BLOCK + literal(b"a", b"") * 500),  # 32 bytes a field, besides
        # Sixty bytes that stand for 1.2 MB.
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
        + frame(HEADERS, END_HEADERS, 3, BLOCK + b"\xbe" * 60),
    ],
)
async def test_headers_without_end(short_path: Path, sent: bytes) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(sent)
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.HEADERS]
        await served.works()


async def test_a_header_block_in_parts_within_the_bounds(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        parts = [frame(CONTINUATION, 0, 1, BLOCK[i : i + 1]) for i in range(20)]
        last = frame(CONTINUATION, END_HEADERS, 1, BLOCK[20:])
        peer.send(frame(HEADERS, 0, 1, b""), *parts, last, frame(DATA, END_STREAM, 1, prefixed(MESSAGE)))
        assert (await peer.answered(1))[0].status == 0


def gzipped(message: bytes) -> bytes:
    return zlib.compress(message, wbits=31)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (BLOCK, prefixed(b"\x0a" * 2000)),
        (BLOCK, b"\x00\x7f\xff\xff\xff"),
        (block("", ("grpc-encoding", "gzip")), b""),
    ],
)
async def test_messages_past_the_bound(short_path: Path, head: bytes, body: bytes) -> None:
    if not body:
        head = block(PATH, ("grpc-encoding", "gzip"))
        bomb = gzipped(bytes(10_000_000))[:900]
        body = b"\x01" + len(bomb).to_bytes(4, "big") + bomb
    async with serving(short_path, Bounds(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, body), call(3))
        large, small = await peer.answered(1, 3)
        assert (large.status, small.status) == (Status.RESOURCE_EXHAUSTED, 0)
        assert served.tripped == [Guard.MESSAGE]


async def test_a_message_past_the_bound_is_refused_before_it_is_whole(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), frame(DATA, 0, 1, b"\x00\x00\x00\x04\x01"))
        (answer,) = await peer.answered(1)
        await peer.until(lambda: answer.reset is not None)
        assert (answer.status, answer.text) == (Status.RESOURCE_EXHAUSTED, "a message holds at most 1024 bytes")
        assert answer.reset == ErrorCode.NO_ERROR
        peer.send(frame(DATA, END_STREAM, 1, bytes(1025)), call(3))
        assert (await peer.answered(3))[0].status == 0, "what was on its way is ignored"


async def test_connections_past_the_bound(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_connections=2)) as served:
        first, second = await served.connect(), await served.connect()
        for peer in (first, second):
            peer.send(call(1))
            await peer.answered(1)
        third = await served.connect()
        assert await third.ended() == (CALM, "too many connections")
        assert served.tripped == [Guard.CONNECTIONS]
        assert served.server.connections == 2
        first.send(call(3))
        assert (await first.answered(3))[0].status == 0
        await second.close()
        async with asyncio.timeout(10):
            while served.server.connections == 2:
                await asyncio.sleep(0.001)
        await served.works()


async def test_streams_past_the_bound(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_streams=3)) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1), call(3), frame(HEADERS, END_HEADERS, 5, BLOCK), call(7), call(9))
        refused = await peer.answered(7, 9)
        assert [answer.reset for answer in refused] == [ErrorCode.REFUSED_STREAM] * 2
        assert served.tripped == [Guard.STREAMS] * 2
        peer.send(frame(DATA, END_STREAM, 5, prefixed(MESSAGE)))
        served.counters.open.set()
        assert [answer.status for answer in await peer.answered(1, 3, 5)] == [0, 0, 0]
        peer.send(call(11))
        assert (await peer.answered(11))[0].status == 0


async def test_the_connections_window_is_enforced(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        for stream in range(1, 41, 2):  # 20 requests that stay incomplete, of 15 KB each
            body = b"\x00\x00\x00\x40\x00" + bytes(15_000)
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK), frame(DATA, 0, stream, body))
        assert (await peer.ended())[0] == ErrorCode.FLOW_CONTROL_ERROR
        await served.works()


async def test_the_window_is_given_back(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        filler = b"\x7a\xff\x7c" + bytes(15_999)  # an unknown field: 16 KB a message
        for stream in range(1, 201, 2):
            peer.send(call(stream, MESSAGE + filler))
            await peer.answered(stream)
        granted = sum(int.from_bytes(p, "big") for kind, _, s, p in peer.frames if (kind, s) == (8, 0))
        assert granted + frames.DEFAULT_WINDOW > 100 * 16_000
        assert not served.tripped


STALL = Bounds(stall_timeout_s=0.1)


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
        assert (await peer.answered(1))[0].reset == ErrorCode.CANCEL
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
    bounds = Bounds(stall_timeout_s=0.1, max_control_frames_per_s=1_000_000)
    async with serving(short_path, bounds) as served:
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


def large(size: int) -> bytes:
    """A good message of so many bytes: what it holds besides is unknown."""
    rest = size - len(MESSAGE) - 4
    return MESSAGE + bytes((0x4A, rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14)) + bytes(rest)


@pytest.mark.parametrize(
    "message",
    [b"\x12\x00" * 30_000, b"\x12\xe0\xd4\x03" + b"\x0a\x00" * 30_000, b"\x0a\x01d" + b"\x48\x00" * 30_000],
    ids=["descriptors", "entries", "unknown fields"],
)
async def test_a_message_of_very_many_parts_is_refused_at_once(short_path: Path, message: bytes) -> None:
    async with serving(short_path, config="domain: d") as served:
        peer = await served.connect()
        for stream in (1, 3, 5):
            data = prefixed(b"\x0a\x01d" + message if message[:1] == b"\x12" else message)
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK))
            chunks = [data[i : i + 16_384] for i in range(0, len(data), 16_384)]
            peer.send(*(frame(DATA, END_STREAM if c is chunks[-1] else 0, stream, c) for c in chunks))
            (answer,) = await peer.answered(stream)
            assert answer.status == Status.INVALID_ARGUMENT
            assert answer.text.startswith("more than ")


async def test_calls_that_make_no_sense_are_bounded(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_resets_per_s=10)) as served:
        peer = await served.connect()
        peer.send(*(call(stream, b"") for stream in range(1, 201, 2)))
        await peer.answered(199)
        peer.send(call(201, b""))
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.INVALID_CALL] * 101 + [Guard.RESETS]
        await served.works()


async def test_a_message_that_swells_is_refused(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        body = gzipped(large(60_000))
        head = block(PATH, ("grpc-encoding", "gzip"))
        data = frame(DATA, END_STREAM, 1, b"\x01" + len(body).to_bytes(4, "big") + body)
        peer.send(frame(HEADERS, END_HEADERS, 1, head), data)
        (answer,) = await peer.answered(1)
        assert (answer.status, answer.text) == (
            Status.RESOURCE_EXHAUSTED,
            "a message holds at most 20 times what was sent",
        )
        assert served.tripped == [Guard.MESSAGE]


@pytest.mark.parametrize("head", [block("/" + "\xfc" * 4000), block(PATH, ("grpc-encoding", "\xfc" * 4000))])
async def test_what_a_client_says_is_not_repeated_at_length(short_path: Path, head: bytes) -> None:
    async with serving(short_path, Bounds(max_control_frames_per_s=10)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head))
        (answer,) = await peer.answered(1)
        assert answer.status == Status.UNIMPLEMENTED
        assert len(answer.text) < 1000
        peer.send(*(frame(HEADERS, END_HEADERS | END_STREAM, stream, head) for stream in range(3, 203, 2)))
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.CONTROL_FRAMES]


async def test_incomplete_requests_never_hold_each_other_up(short_path: Path) -> None:
    """Eight requests use up the connection's window before one is whole: the newest goes, the others go on."""
    async with serving(short_path) as served:
        peer = await served.connect()
        data = prefixed(large(40_000))
        for stream in range(1, 17, 2):
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK))
            peer.send(*(frame(DATA, 0, stream, data[i : i + 16_384]) for i in (0, 16_384)))
        (refused,) = await peer.answered(15)
        assert (refused.status, refused.text) == (Status.RESOURCE_EXHAUSTED, "too many incomplete requests")
        for stream in range(1, 15, 2):
            peer.send(frame(DATA, END_STREAM, stream, data[32_768:]))
            (answer,) = await peer.answered(stream)
            assert answer.status == 0
        assert served.tripped == [Guard.MESSAGE]


async def test_the_window_is_given_back_while_requests_are_incomplete(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        whole, half = prefixed(large(16_000)), prefixed(large(40_000))
        for stream in range(1, 15, 2):
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK), frame(DATA, END_STREAM, stream, whole))
        await peer.answered(*range(1, 15, 2))
        peer.send(frame(HEADERS, END_HEADERS, 15, BLOCK), frame(DATA, 0, 15, half[:16_384]))
        peer.send(frame(DATA, 0, 15, half[16_384:32_768]))
        await peer.until(lambda: any(kind == frames.WINDOW_UPDATE and not s for kind, _, s, _ in peer.frames[3:]))
        peer.send(frame(DATA, END_STREAM, 15, half[32_768:]))
        assert (await peer.answered(15))[0].status == 0


async def test_each_new_window_in_one_settings_frame_is_paid_for(short_path: Path) -> None:
    async with serving(short_path, Bounds(max_control_frames_per_s=10)) as served:
        peer = await served.connect()
        many = frames.SETTING.pack(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1000) * 150
        peer.send(frame(frames.SETTINGS, 0, 0, many))
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.CONTROL_FRAMES]
