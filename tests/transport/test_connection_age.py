"""Old connections of the h2 engine end: GOAWAY first, then the answers to open calls, then the close."""

from pathlib import Path

from extauth.transport.engine import AGE_JITTER, ConnectionLimits, Guard
from extauth.transport.h2.frames import ACK, DATA, END_HEADERS, HEADERS, MAX_STREAM_ID, PING, PREFACE, ErrorCode, frame
from tests.support.clock import Seconds
from tests.support.codes import OK, OVER_LIMIT
from tests.support.h2_peer import BLOCK, Peer, Serving, call, serving

AGE_S = 100.0
OLD_S = AGE_S * (1 + AGE_JITTER) + 1
LIMITS = ConnectionLimits(max_age_s=AGE_S, age_grace_s=20, stall_timeout_s=0.1)


async def checked(served: Serving, clock: Seconds, at: float) -> None:
    """Return once the engine has looked at its connections at this instant: one that is stalled has ended."""
    stalled = await served.connect(start=False)
    stalled.send(PREFACE)
    await stalled.until(lambda: stalled.frames)
    clock.now = at
    await stalled.ended()


async def left(peer: Peer) -> bool:
    """Whether the server has announced that it leaves."""
    peer.send(frame(PING, 0, 0, b"12345678"))
    await peer.until(lambda: (ACK, b"12345678") in peer.pings)
    peer.pings.remove((ACK, b"12345678"))
    return bool(peer.goaways)


async def test_connections_that_were_opened_together_end_one_by_one(short_path: Path) -> None:
    clock = Seconds()
    began = clock.now
    async with serving(short_path, LIMITS, clock=clock) as served:
        peers = [await served.connect() for _ in range(40)]
        assert not any([await left(peer) for peer in peers])
        await checked(served, clock, began + AGE_S * (1 - AGE_JITTER) - 0.1)
        assert not any([await left(peer) for peer in peers])
        await checked(served, clock, began + AGE_S)
        assert 0 < sum([await left(peer) for peer in peers]) < 40
        await checked(served, clock, began + AGE_S * (1 + AGE_JITTER))
        assert all([await left(peer) for peer in peers])


async def test_without_a_bound_no_connection_is_too_old(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, ConnectionLimits(stall_timeout_s=0.1), clock=clock) as served:
        peer = await served.connect()
        assert not await left(peer)
        await checked(served, clock, clock.now + 1e9)
        assert not await left(peer)


async def test_open_calls_are_answered_before_the_close_however_long_that_takes(short_path: Path) -> None:
    clock = Seconds()
    async with serving(short_path, LIMITS, clock=clock) as served:
        served.counters.open.clear()
        peer = await served.connect()
        peer.send(call(1))
        await served.asked()
        await checked(served, clock, clock.now + OLD_S)
        await peer.until(lambda: len(peer.pings) == 1)
        peer.send(call(3), frame(PING, ACK, 0, peer.pings[0][1]), call(5))
        await peer.until(lambda: len(peer.goaways) == 2)
        assert [goaway[:2] for goaway in peer.goaways] == [(MAX_STREAM_ID, 0), (3, 0)]
        assert (await peer.answered(5))[0].reset == ErrorCode.REFUSED_STREAM, "the client sends it again elsewhere"
        await checked(served, clock, clock.now + LIMITS.age_grace_s + 1)
        assert not peer.closed
        served.counters.open.set()
        assert [answer.code for answer in await peer.answered(1, 3)] == [OK, OK]
        assert (await peer.ended())[0] == ErrorCode.NO_ERROR
        await served.works()


async def test_a_request_that_is_incomplete_after_the_grace_is_denied(short_path: Path) -> None:
    clock = Seconds()
    # The grace is longer than the ages of connections differ: that of the youngest is not over when the oldest leaves.
    limits = ConnectionLimits(max_age_s=AGE_S, age_grace_s=2 * AGE_JITTER * AGE_S + 10, stall_timeout_s=1000)
    async with serving(short_path, limits, clock=clock) as served:
        peer = await served.connect()
        peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK), frame(DATA, 0, 1, b"\0"))
        assert not await left(peer)
        clock.now += OLD_S
        await peer.until(lambda: peer.goaways)
        assert (served.tripped, peer.answers) == ([], {})
        clock.now += limits.age_grace_s
        assert (await peer.answered(1))[0].code == OVER_LIMIT
        assert (await peer.ended())[0] == ErrorCode.NO_ERROR
        assert served.tripped == [Guard.SLOW_REQUEST]
