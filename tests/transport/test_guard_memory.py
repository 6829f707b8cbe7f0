"""The memory for unfinished messages is bounded, and so are the windows that are granted for them."""

from functools import partial
from pathlib import Path

from extauth.transport.engine import ConnectionLimits, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ErrorCode, frame
from extauth.transport.h2.grpc_framing import prefixed
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_bodies import Sending, data, large
from tests.support.h2_peer import BLOCK, MESSAGE, Peer, call, serving


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


async def test_large_messages_wait_for_room_and_are_all_decided(short_path: Path) -> None:
    """Forty messages of 100 kB where there is room for the unfinished parts of few: small calls go on meanwhile."""
    limits = ConnectionLimits(max_unfinished_bytes=4_000_000)
    async with serving(short_path, limits) as served:
        peer = await served.connect()
        bodies = {stream: prefixed(large(100_000)) for stream in range(1, 81, 2)}
        sending = Sending(peer, bodies)
        sending.window -= len(MESSAGE) + 5
        peer.send(call(81))
        assert (await peer.answered(81))[0].code == OK
        assert [answer.code for answer in await sending.until_answered()] == [OK] * 40
        assert not served.tripped


async def test_without_any_room_messages_go_on_one_by_one(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=70_000)) as served:
        for stream in (1, 3):
            peer = await served.connect()
            (answer,) = await Sending(peer, {stream: prefixed(large(1_000_000))}).until_answered()
            assert answer.code == OK, served.tripped
        assert not served.tripped


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
        assert (await peer.answered(121))[0].code == OK
        denied = [stream for stream, answer in peer.answers.items() if stream != 121]
        assert all(peer.answers[stream].code == OVER_LIMIT for stream in denied)
        assert len(denied) == 60 - 1_000_000 // 60_004
        assert 1 not in denied, "the oldest stays"
        assert served.tripped == [Guard.MESSAGE] * len(denied)
        peer.send(frame(DATA, END_STREAM, 1, bodies[1][-1:]))
        assert (await peer.answered(1))[0].code == OK


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
        assert answer.code == OVER_LIMIT
        modest.send(*data(1, half[39_000:]), *data(3, half[2_000:]))
        assert [answer.code for answer in await modest.answered(1, 3)] == [OK, OK]


async def test_calls_that_hold_nothing_yet_make_no_room(short_path: Path) -> None:
    async with serving(short_path, ConnectionLimits(max_unfinished_bytes=100_000)) as served:
        peer = await served.connect()
        half = prefixed(large(60_000))
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), *data(1, half[:55_000], end=False))
        peer.send(frame(HEADERS, END_HEADERS, 3, BLOCK), *data(3, half[:40_000], end=False))
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in range(5, 25, 2)))
        peer.send(*data(1, half[55_000:59_000], end=False), *data(3, half[40_000:50_000], end=False))
        (answer,) = await peer.answered(3)
        assert answer.code == OVER_LIMIT
        peer.send(*(frame(DATA, END_STREAM, stream, prefixed(MESSAGE)) for stream in range(5, 25, 2)))
        assert [answer.code for answer in await peer.answered(*range(5, 25, 2))] == [OK] * 10
