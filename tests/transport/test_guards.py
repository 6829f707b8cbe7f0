"""Floods and stalls cost the attacker: each guard ends them with the right code, is counted, and harms nobody else."""

import asyncio
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import uvloop

from extauth.limiter.limiter import OnStoreFailure
from extauth.rls.protobuf import bytes_field, varint
from extauth.rls.request import SERVICE
from extauth.transport.batching import SWEEP_S, Shed
from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import Status, literal, prefixed
from tests.support.clock import Seconds
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, START, Answer, Peer, block, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM
ONE = (1).to_bytes(4, "big")


def resets(n: int) -> bytes:
    """Streams that are cancelled as soon as they are opened."""
    return b"".join(call(s) + frames.rst_stream(s, ErrorCode.CANCEL) for s in range(1, 2 * n, 2))


def provoked(n: int) -> bytes:
    """Calls whose streams the server is made to reset (CVE-2025-8671)."""
    return b"".join(call(s) + frames.window_update(s, 0) for s in range(1, 2 * n, 2))


def invalid(n: int) -> bytes:
    """Streams that the server has to reset, and no call among them."""
    return b"".join(frame(HEADERS, END_HEADERS, s, literal(b"x", b"y")) for s in range(1, 2 * n, 2))


def on_an_open_stream(payload: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda n: frame(HEADERS, END_HEADERS, 1, BLOCK) + payload(n)


@pytest.mark.parametrize(
    ("flood", "guard"),
    [
        (invalid, Guard.RESETS),
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
    limits = ConnectionLimits(max_resets_per_s=10, max_control_frames_per_s=control, max_streams=10_000)
    async with serving(short_path, limits) as served:
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


@pytest.mark.parametrize("flood", [resets, provoked])
async def test_resets_never_end_a_connection_whose_calls_are_answered(
    short_path: Path, flood: Callable[[int], bytes]
) -> None:
    """One connection of Envoy carries everybody's calls, and passes on the resets of each of its clients."""
    limits = ConnectionLimits(max_resets_per_s=1, max_control_frames_per_s=1, max_streams=10_000)
    async with serving(short_path, limits) as served:
        peer = await served.connect()
        served.counters.open.clear()
        peer.send(call(1))
        await peer.until(lambda: peer.settings_acks)
        peer.send(flood(500).replace(call(1), b""), call(1001))
        peer.send(frame(frames.PING, 0, 0, b"the last"))
        await peer.until(lambda: peer.pings)
        served.counters.open.set()
        assert [answer.status for answer in await peer.answered(1001)] == [0]
        assert not served.tripped
        assert not peer.goaways


async def test_who_has_work_done_may_send_any_number_of_window_updates_and_pings(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_control_frames_per_s=1)) as served:
        peer = await served.connect()
        for stream in range(1, 401, 2):
            peer.send(call(stream), frames.window_update(0, 100) * 3, frame(frames.PING, 0, 0, b"12345678"))
            await peer.answered(stream)
        assert not served.tripped


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
        (literal(b"tracestate", b"x" * 16_000), 1),
        (literal(b"tracestate", b"x" * 61_440), 1),
        (b"".join(literal(b"x-%d" % n, b"y" * 600) for n in range(100)), 1),
        (b"".join(literal(b"x-%d" % n, b"y") for n in range(3000)), 1),
        (literal(b"tracestate", b"x" * 131_072), 2),
        (literal(b"tracestate", b"x" * 1_000_000), 2),
        (b"".join(literal(b"x-%d" % n, b"") for n in range(4000)), 2),
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
        assert [answer.code for answer in await peer.answered(1, 3)] == [verdict, 1]
        assert served.tripped == [Guard.HEADERS] * (verdict - 1)
        assert served.counters.calls == 3 - verdict


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
async def test_messages_past_the_bound_are_denied(short_path: Path, head: bytes, body: bytes) -> None:
    if not body:
        head = block(PATH, ("grpc-encoding", "gzip"))
        bomb = gzipped(bytes(10_000_000))[:900]
        body = b"\x01" + len(bomb).to_bytes(4, "big") + bomb
    async with serving(short_path, ConnectionLimits(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, body), call(3))
        assert [answer.code for answer in await peer.answered(1, 3)] == [2, 1]
        assert served.tripped == [Guard.MESSAGE]


async def test_a_message_past_the_bound_is_denied_before_it_is_whole(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_message_bytes=1024)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), frame(DATA, 0, 1, b"\x00\x00\x00\x04\x01"))
        (answer,) = await peer.answered(1)
        await peer.until(lambda: answer.reset is not None)
        assert answer.code == 2
        assert answer.reset == ErrorCode.NO_ERROR
        peer.send(frame(DATA, END_STREAM, 1, bytes(1025)), call(3))
        assert (await peer.answered(3))[0].status == 0, "what was on its way is ignored"


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
        assert answer.code == 2
        peer.send(*(frame(DATA, END_STREAM, stream, prefixed(MESSAGE)) for stream in (1, 3, 5, 7)))
        assert [answer.code for answer in await peer.answered(1, 3, 5)] == [1] * 3


async def test_calls_past_the_bound_of_waiting_ones_get_the_failure_policy(short_path: Path) -> None:
    async with serving(short_path, max_waiting=2) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        await served.asked()
        peer.send(call(3), call(5), call(7))
        (answer,) = await peer.answered(7)
        assert answer.code == 2
        assert served.shed == [Shed.WAITING_CALLS]
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(1, 3, 5)] == [1] * 3


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
        assert [answer.code for answer in await peer.answered(1, 203)] == [1, 1]
        assert len(served.shed) == before


@pytest.mark.parametrize(("policy", "got"), [(OnStoreFailure.ALLOW, 1), (OnStoreFailure.DENY, 2)])
async def test_a_call_gets_the_failure_policy_before_its_own_timeout(
    short_path: Path, policy: OnStoreFailure, got: int
) -> None:
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
        assert [answer.code for answer in await peer.answered(3, 9)] == [1, 1]
        assert served.counters.calls == 3, "of those that waited, the one with time left is counted"


async def test_an_incomplete_call_is_denied_before_its_own_timeout(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, block(PATH, ("grpc-timeout", "50m"))), frame(DATA, 0, 1, b"\0"))
        (answer,) = await peer.answered(1)
        assert answer.code == 2
        assert served.tripped == [Guard.SLOW_REQUEST]
        peer.send(call(3))
        assert (await peer.answered(3))[0].code == 1


async def test_a_streams_window_is_enforced(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), frame(HEADERS, END_HEADERS, 3, BLOCK))
        for stream in (1, 3):  # the first goes on without room, the second waits for it
            peer.send(frame(DATA, 0, stream, prefixed(large(200_000))[:16_000]))
            for _ in range(4):
                peer.send(frame(DATA, 0, stream, bytes(13_000)))
                await peer.until(lambda: peer.settings_acks)
        await peer.until(lambda: 3 in peer.answers)
        assert peer.answers[3].reset == ErrorCode.FLOW_CONTROL_ERROR or peer.answers[3].code == 2


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
        assert answer.code == 2
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


def large(size: int) -> bytes:
    """A good message of so many bytes: what it holds besides is unknown."""
    rest = size - len(MESSAGE) - 5
    lengths = (rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14 & 0x7F | 0x80, rest >> 21)
    return MESSAGE + bytes((0x4A, *lengths)) + bytes(rest)


@pytest.mark.parametrize(
    "message",
    [b"\x12\x00" * 30_000, b"\x12\xe0\xd4\x03" + b"\x0a\x00" * 30_000, b"\x0a\x01d" + b"\x48\x00" * 30_000],
    ids=["descriptors", "entries", "unknown fields"],
)
async def test_a_message_of_very_many_parts_is_denied_at_once(short_path: Path, message: bytes) -> None:
    async with serving(short_path, config="domain: d") as served:
        peer = await served.connect()
        for stream in (1, 3, 5):
            data = prefixed(b"\x0a\x01d" + message if message[:1] == b"\x12" else message)
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK))
            chunks = [data[i : i + 16_384] for i in range(0, len(data), 16_384)]
            peer.send(*(frame(DATA, END_STREAM if c is chunks[-1] else 0, stream, c) for c in chunks))
            (answer,) = await peer.answered(stream)
            assert answer.code == 2


async def test_calls_that_make_no_sense_end_no_connection(short_path: Path) -> None:
    """They come of how one route of an Envoy is configured, and its other routes share the connection."""
    async with serving(short_path, ConnectionLimits(max_resets_per_s=1, max_control_frames_per_s=1)) as served:
        peer = await served.connect()
        peer.send(*(call(stream, b"") for stream in range(1, 201, 2)), call(201))
        assert (await peer.answered(201))[0].code == 1
        assert served.tripped == [Guard.INVALID_CALL] * 100


async def test_a_message_that_swells_is_decided(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        body = gzipped(MESSAGE + b"\x4a\xe0\xd4\x03" + b"z" * 60_000)
        head = block(PATH, ("grpc-encoding", "gzip"))
        data = frame(DATA, END_STREAM, 1, b"\x01" + len(body).to_bytes(4, "big") + body)
        peer.send(frame(HEADERS, END_HEADERS, 1, head), data)
        assert (await peer.answered(1))[0].code == 1
        assert not served.tripped


@pytest.mark.parametrize("head", [block("/" + "\xfc" * 4000), block(PATH, ("grpc-encoding", "\xfc" * 4000))])
async def test_what_a_client_says_is_not_repeated_at_length(short_path: Path, head: bytes) -> None:
    async with serving(short_path, ConnectionLimits(max_control_frames_per_s=10)) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head))
        (answer,) = await peer.answered(1)
        assert answer.status == Status.UNIMPLEMENTED
        assert len(answer.text) < 1000
        peer.send(*(frame(HEADERS, END_HEADERS | END_STREAM, stream, head) for stream in range(3, 803, 2)))
        assert (await peer.ended())[0] == CALM
        assert served.tripped == [Guard.CONTROL_FRAMES]


def data(stream: int, body: bytes, *, end: bool = True) -> list[bytes]:
    """A body in frames."""
    parts = [body[i : i + 16_384] for i in range(0, len(body), 16_384)]
    return [frame(DATA, END_STREAM if end and i == len(parts) - 1 else 0, stream, p) for i, p in enumerate(parts)]


class Sending:
    """A client that sends bodies as far as the windows allow."""

    def __init__(self, peer: Peer, bodies: dict[int, bytes]) -> None:
        self.peer = peer
        self.left = dict(bodies)
        self.windows = dict.fromkeys(bodies, 65_535)
        self.window = 65_535
        self._read = 0
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in bodies))

    def go_on(self) -> None:
        """Send what the windows that were granted allow."""
        for kind, _, stream, payload in self.peer.frames[self._read :]:
            if kind == frames.WINDOW_UPDATE and stream:
                self.windows[stream] += int.from_bytes(payload, "big")
            elif kind == frames.WINDOW_UPDATE:
                self.window += int.from_bytes(payload, "big")
        self._read = len(self.peer.frames)
        while self._send():
            pass

    def _send(self) -> bool:
        """A frame a stream; whether there was any."""
        sent = False
        for stream, left in list(self.left.items()):
            size = min(len(left), self.windows[stream], self.window, 16_384)
            if size and stream not in self.peer.answers:
                sent = True
                self.left[stream] = left[size:]
                self.windows[stream] -= size
                self.window -= size
                self.peer.send(frame(DATA, 0 if left[size:] else END_STREAM, stream, left[:size]))
                if not left[size:]:
                    del self.left[stream]
        return sent

    async def until_answered(self) -> list[Answer]:
        """Go on until each has its answer."""
        streams = list(self.windows)

        def done() -> bool:
            self.go_on()
            return all(self.peer.answers.get(stream, Answer()).ended for stream in streams)

        await self.peer.until(done)
        return [self.peer.answers[stream] for stream in streams]


@pytest.mark.parametrize("size", [65_530, 65_531, 70_000, 1_100_000, 4_194_304])
async def test_large_messages_are_decided(short_path: Path, size: int) -> None:
    async with serving(short_path) as served:
        (answer,) = await Sending(await served.connect(), {1: prefixed(large(size))}).until_answered()
        assert answer.code == 1
        assert not served.tripped


async def test_large_messages_wait_for_room_and_are_all_decided(short_path: Path) -> None:
    """Forty messages of 100 kB where there is room for the unfinished parts of few: small calls go on meanwhile."""
    limits = ConnectionLimits(max_unfinished_bytes=4_000_000)
    async with serving(short_path, limits) as served:
        peer = await served.connect()
        bodies = {stream: prefixed(large(100_000)) for stream in range(1, 81, 2)}
        sending = Sending(peer, bodies)
        sending.window -= len(MESSAGE) + 5
        peer.send(call(81))
        assert (await peer.answered(81))[0].code == 1
        assert [answer.code for answer in await sending.until_answered()] == [1] * 40
        assert not served.tripped


async def test_without_any_room_messages_go_on_one_by_one(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=70_000)) as served:
        for stream in (1, 3):
            peer = await served.connect()
            (answer,) = await Sending(peer, {stream: prefixed(large(1_000_000))}).until_answered()
            assert answer.code == 1, served.tripped
        assert not served.tripped


def _greeted(peer: Peer) -> bool:
    return peer.settings_acks > 0


def _more(peer: Peer, read: int) -> bool:
    return len(peer.frames) > read


async def test_memory_for_unfinished_messages_is_bounded_and_small_calls_are_answered(short_path: Path) -> None:
    """Sixty messages that stall a byte before their end: the newest are denied, the connection goes on."""
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=1_000_000)) as served:
        peer = await served.connect()
        bodies = {stream: prefixed(large(60_000))[:-1] + b"" for stream in range(1, 121, 2)}
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in bodies))
        sent, window, read = 0, 65_535, 0
        for stream, body in bodies.items():
            for part in data(stream, body, end=False):
                while window < 16_384:
                    await peer.until(partial(_more, peer, read))
                    updates = [p for kind, _, s, p in peer.frames[read:] if kind == frames.WINDOW_UPDATE and not s]
                    window += sum(int.from_bytes(payload, "big") for payload in updates)
                    read = len(peer.frames)
                window -= len(part) - 9
                sent += len(part) - 9
                peer.send(part)
        peer.send(call(121))
        assert (await peer.answered(121))[0].code == 1
        denied = [stream for stream, answer in peer.answers.items() if stream != 121]
        assert all(peer.answers[stream].code == 2 for stream in denied)
        assert len(denied) == 60 - 1_000_000 // 60_004
        assert 1 not in denied, "the oldest stays"
        assert served.tripped == [Guard.MESSAGE] * len(denied)
        peer.send(frame(DATA, END_STREAM, 1, bodies[1][-1:]))
        assert (await peer.answered(1))[0].code == 1


async def test_who_holds_most_makes_room_for_the_others(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        greedy, modest = await served.connect(), await served.connect()
        half = prefixed(large(40_000))
        greedy.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in (1, 3)))
        greedy.send(*data(1, half[:30_000], end=False), *data(3, half[:30_000], end=False))
        greedy.send(frame(frames.PING, 0, 0, b"12345678"))
        await greedy.until(lambda: greedy.pings)
        modest.send(frame(HEADERS, END_HEADERS, 1, BLOCK), *data(1, half[:39_000], end=False))
        modest.send(frame(frames.PING, 0, 0, b"12345678"))
        await modest.until(lambda: modest.pings)
        assert not modest.answers
        modest.send(frame(HEADERS, END_HEADERS, 3, BLOCK), *data(3, half[:2_000], end=False))
        (answer,) = await greedy.answered(3)
        assert answer.code == 2
        modest.send(*data(1, half[39_000:]), *data(3, half[2_000:]))
        assert [answer.code for answer in await modest.answered(1, 3)] == [1, 1]


async def test_header_blocks_that_stall_are_bounded_together(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        peers = [await served.connect() for _ in range(3)]
        for peer, parts in zip(peers, (3, 2, 2), strict=True):
            peer.send(frame(HEADERS, 0, 1, BLOCK), *(frame(CONTINUATION, 0, 1, bytes(16_000)) for _ in range(parts)))
        assert (await peers[0].ended())[0] == CALM
        await served.works()


async def test_many_windows_in_one_settings_frame_cost_little(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        many = frames.SETTING.pack(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1000) * 2700
        peer.send(frame(frames.SETTINGS, 0, 0, many), call(1))
        assert (await peer.answered(1))[0].code == 1


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
        assert (await peer.answered(7))[0].code == 1
        stop = asyncio.create_task(served.server.stop(10))
        await peer.until(lambda: len(peer.pings) == 1)
        peer.send(frame(frames.PING, frames.ACK, 0, peer.pings[0][1]))
        await peer.ended()
        assert [peer.answers[stream].status for stream in (1, 3)] == [Status.UNAVAILABLE] * 2
        await stop


@pytest.mark.parametrize("value", [" a=b", "a=b ", "\ta=b", "a=b\t", " "])
async def test_white_space_around_a_header_that_envoy_passes_on_changes_nothing(short_path: Path, value: str) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(call(1, head=block(PATH, ("tracestate", value))))
        assert (await peer.answered(1))[0].code == 1


@pytest.mark.parametrize("message", [MESSAGE, b"\x0a\x01d" + b"\x12\x00" * 101], ids=["shed", "too large"])
async def test_answers_without_a_decision_keep_a_connection_open_too(short_path: Path, message: bytes) -> None:
    async with serving(short_path, ConnectionLimits(max_control_frames_per_s=1), max_waiting=1) as served:
        served.counters.open.clear()
        other = await served.connect()
        other.send(call(1))
        await served.asked()
        other.send(call(3), frame(frames.PING, 0, 0, b"12345678"))
        await other.until(lambda: other.pings)
        peer = await served.connect()
        for stream in range(1, 201, 2):
            peer.send(call(stream, message), frames.window_update(0, 100) * 2)
        assert {answer.code for answer in await peer.answered(*range(1, 201, 2))} == {2}
        assert not peer.goaways
        served.counters.open.set()


async def test_calls_that_hold_nothing_yet_make_no_room(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        peer = await served.connect()
        half = prefixed(large(60_000))
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), *data(1, half[:55_000], end=False))
        peer.send(frame(HEADERS, END_HEADERS, 3, BLOCK), *data(3, half[:40_000], end=False))
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in range(5, 25, 2)))
        peer.send(*data(1, half[55_000:59_000], end=False), *data(3, half[40_000:50_000], end=False))
        (answer,) = await peer.answered(3)
        assert answer.code == 2
        peer.send(*(frame(DATA, END_STREAM, stream, prefixed(MESSAGE)) for stream in range(5, 25, 2)))
        assert [answer.code for answer in await peer.answered(*range(5, 25, 2))] == [1] * 10


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


async def test_a_client_with_a_smaller_table_for_headers_is_told_its_size(short_path: Path) -> None:
    """Envoy's `hpack_table_size: 0`: nghttp2 ends the connection where the first block does not begin so."""
    async with serving(short_path) as served:
        peer = await served.connect()
        peer.send(frames.settings({frames.SETTINGS_HEADER_TABLE_SIZE: 100}), call(1), call(3))
        await peer.answered(1, 3)
        blocks = [payload for kind, _, _, payload in peer.frames if kind == HEADERS]
        assert blocks[0][:1] == b"\x20"
        assert b"\x20" not in [payload[:1] for payload in blocks[1:]]


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
            assert (await peer.answered(1))[0].code == 1
    assert not errors


def swollen(size: int) -> bytes:
    """A call whose message is small while it is compressed."""
    body = gzipped(MESSAGE + b"\x4a" + varint(size) + b"z" * size)
    head = block(PATH, ("grpc-encoding", "gzip"))
    return frame(HEADERS, END_HEADERS, 1, head) + frame(
        DATA, END_STREAM, 1, b"\x01" + len(body).to_bytes(4, "big") + body
    )


@pytest.mark.parametrize(
    "costly",
    [
        # 409 bytes that stand for a megabyte of headers.
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\xbe" * 255),
        frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x82" * 16_000),
        swollen(4_000_000),
    ],
    ids=["table", "fields", "gzip"],
)
async def test_a_turn_ends_by_what_a_client_makes_of_its_bytes_too(short_path: Path, costly: bytes) -> None:
    """Behind ten such calls in one read, another connection's call is answered before the last of them is read."""
    table = frame(HEADERS, END_HEADERS | END_STREAM, 1, block("/x") + b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000)
    async with serving(short_path) as served:
        hostile, honest = await served.connect(), await served.connect()
        honest.send(call(1))
        await honest.answered(1)
        many = [costly.replace(b"\x00\x00\x00\x01", s.to_bytes(4, "big"), 2) for s in range(3, 23, 2)]
        hostile.send(table, *many, frame(frames.PING, 0, 0, b"the last"))
        honest.send(call(3))
        assert (await honest.answered(3))[0].code == 1
        assert len(served.tripped) + served.counters.calls < 2 + len(many)
        await hostile.until(lambda: hostile.pings)
        assert len(served.tripped) + served.counters.calls == 2 + len(many)


async def test_a_turn_ends_by_what_its_calls_take_to_plan(short_path: Path) -> None:
    """Behind calls of a hundred new descriptors in one read, another connection's is answered before the last."""

    def wide(stream: int) -> bytes:
        pairs = (bytes_field(1, b"n") + bytes_field(2, b"%d-%d" % (stream, i)) for i in range(100))
        descriptors = (bytes_field(2, bytes_field(1, pair)) for pair in pairs)
        return call(stream, bytes_field(1, b"api") + b"".join(descriptors))

    async with serving(short_path) as served:
        hostile, honest = await served.connect(), await served.connect()
        for peer in (hostile, honest):
            peer.send(call(1))
            await peer.answered(1)
        streams = range(3, 83, 2)
        many = b"".join(map(wide, streams))
        assert len(many) < ConnectionLimits().max_turn_bytes
        hostile.send(many)
        honest.send(call(3))
        assert (await honest.answered(3))[0].code == 1
        planned_us = served.planner.work_us
        await hostile.answered(*streams)
        assert planned_us < served.planner.work_us


async def test_late_data_of_calls_that_were_given_up_ends_no_connection(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and though nothing else came meanwhile."""
    monkeypatch.setattr("extauth.transport.h2.connection.SHRINK_S", 0)
    async with serving(short_path, ConnectionLimits(stall_timeout_s=0.5)) as served:
        peer = await served.connect()
        streams = range(1, 401, 2)
        body = prefixed(MESSAGE)
        for stream in streams:
            peer.send(frame(HEADERS, END_HEADERS, stream, BLOCK), frame(DATA, 0, stream, body[:-1]))
        assert {answer.code for answer in await peer.answered(*streams)} == {2}
        served.counters.open.clear()
        peer.send(call(401), *(frame(DATA, END_STREAM, stream, body[-1:]) for stream in streams))
        await served.asked()
        served.counters.open.set()
        assert (await peer.answered(401))[0].status == 0
        assert not peer.goaways
