"""Floods of frames end the connection that sends them, and only if none of its calls is being answered."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import Status, literal
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call, serving

CALM = ErrorCode.ENHANCE_YOUR_CALM


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
        assert {answer.code for answer in await peer.answered(*range(1, 201, 2))} == {OVER_LIMIT}
        assert not peer.goaways
        served.counters.open.set()


async def test_calls_that_make_no_sense_end_no_connection(short_path: Path) -> None:
    """They come of how one route of an Envoy is configured, and its other routes share the connection."""
    async with serving(short_path, ConnectionLimits(max_resets_per_s=1, max_control_frames_per_s=1)) as served:
        peer = await served.connect()
        peer.send(*(call(stream, b"") for stream in range(1, 201, 2)), call(201))
        assert (await peer.answered(201))[0].code == OK
        assert served.tripped == [Guard.INVALID_CALL] * 100


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


async def test_many_windows_in_one_settings_frame_cost_little(short_path: Path) -> None:
    async with serving(short_path) as served:
        peer = await served.connect()
        many = frames.SETTING.pack(frames.SETTINGS_INITIAL_WINDOW_SIZE, 1000) * 2700
        peer.send(frame(frames.SETTINGS, 0, 0, many), call(1))
        assert (await peer.answered(1))[0].code == OK
