"""The HTTP/2 connection without a socket, an event loop or a clock: bytes and times in, calls and bytes out."""

from collections.abc import Iterator

import pytest

from extauth.limiter.counters import Uncounted
from extauth.limiter.templates import Answer
from extauth.rls.response import Code, Verdict, encode_response
from extauth.transport.batching import Batcher
from extauth.transport.engine import ConnectionLimits, EngineContext, Guard, OnGuard
from extauth.transport.h2 import frames
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.connection import IDLE_S, SHRINK_S, START_S, Connection
from extauth.transport.h2.control_frames import GOAWAY_PING
from extauth.transport.h2.frames import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, ErrorCode, frame
from extauth.transport.h2.grpc_framing import prefixed
from extauth.transport.h2.phases import Phase
from extauth.transport.h2.server_state import ServerState
from extauth.transport.waiting import Calls
from tests.support.h2_peer import BLOCK, CONFIG, MESSAGE, PATH, START, block, call
from tests.support.service import decider_of

NOW, STALL_S = 1000.0, 10.0
OK = encode_response(Verdict(Code.OK, ()))


def state_of(on_guard: OnGuard = lambda _guard: None, **limits: int) -> ServerState:
    decider = decider_of(CONFIG)
    batcher = Batcher(decider, clock=lambda: NOW)
    bounds = ConnectionLimits(stall_timeout_s=STALL_S, **limits)
    return ServerState(EngineContext(planner=decider.planner, batcher=batcher, limits=bounds, on_guard=on_guard))


class Owner:
    """The caller of a connection's calls."""

    def __init__(self, state: ServerState | None = None, **limits: int) -> None:
        self.tripped: list[Guard] = []
        self.connection = Connection(state or state_of(self.tripped.append, **limits), self, NOW)
        self.flushes = 0

    def phase(self) -> Phase:
        return self.connection.phase

    def drop_ended(self, calls: Calls) -> None:
        self.connection.drop_ended(calls)

    def expire(self, calls: Calls, now: float) -> None:
        self.connection.expire(calls, now)

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        self.connection.answer(calls, messages, NOW)

    def flush(self) -> None:
        self.flushes += 1

    def written(self) -> list[tuple[int, int]]:
        """The type and stream of each frame that is to be sent."""
        return [(kind, stream) for kind, stream, _ in split(self.connection.data_to_send())]


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        high, low, kind, _, stream = frames.HEAD.unpack_from(data, at)
        end = at + 9 + (high << 8 | low)
        yield kind, stream, data[at + 9 : end]
        at = end


def test_bytes_make_calls_and_answers_make_bytes() -> None:
    owner = Owner()
    assert owner.connection.receive(START[:30], NOW) is None
    calls = owner.connection.receive(START[30:] + call(1) + call(3), NOW + 1)
    assert calls is not None
    assert (calls.stream_ids, calls.arrived, calls.caller) == ([1, 3], NOW + 1, owner)
    assert owner.written() == [(frames.SETTINGS, 0), (frames.SETTINGS, 0)]
    owner.answer(calls, [OK, Uncounted.UNSENT])
    assert owner.written() == [(HEADERS, 1), (DATA, 1), (HEADERS, 1), (HEADERS, 3)]
    assert owner.flushes == 0, "its owner knows when it called"


def test_a_call_that_is_cancelled_is_dropped_before_it_is_counted() -> None:
    owner = Owner()
    calls = owner.connection.receive(START + call(1) + call(3), NOW)
    assert calls is not None
    owner.connection.receive(frames.rst_stream(1, ErrorCode.CANCEL), NOW)
    owner.connection.drop_ended(calls)
    assert calls.stream_ids == [3]


def test_a_call_that_expires_is_answered_once() -> None:
    owner = Owner()
    impatient = block(PATH, ("grpc-timeout", "1S"))  # the deadline is a quarter of it earlier
    calls = owner.connection.receive(START + call(1, head=impatient) + call(3), NOW)
    assert calls is not None
    assert calls.deadline == NOW + 0.75
    owner.written()
    owner.connection.expire(calls, NOW + 0.74)
    assert (calls.deadline, owner.written()) == (NOW + 0.75, [])
    owner.connection.expire(calls, NOW + 0.75)
    assert (calls.deadline, {stream for _, stream in owner.written()}) == (float("inf"), {1})
    owner.answer(calls, [OK, OK])
    assert {stream for _, stream in owner.written()} == {3}


@pytest.mark.parametrize(
    ("sent", "guard", "code"),
    [
        (START[:20], Guard.SLOW_START, ErrorCode.SETTINGS_TIMEOUT),
        (START + frame(HEADERS, 0, 1, BLOCK), Guard.SLOW_REQUEST, ErrorCode.ENHANCE_YOUR_CALM),
        (START + frame(HEADERS, END_HEADERS, 1, BLOCK), Guard.SLOW_REQUEST, None),
        (START + frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 0}) + call(1), Guard.SLOW_READER, None),
    ],
    ids=["preface", "header block", "request", "window"],
)
def test_what_the_client_owes_is_due_after_the_stall_timeout(sent: bytes, guard: Guard, code: ErrorCode | None) -> None:
    owner = Owner()
    calls = owner.connection.receive(sent, NOW)
    if calls is not None:
        owner.answer(calls, [OK])
    owner.connection.data_to_send()
    for passed_s in (0, 1, STALL_S):
        owner.connection.check(NOW + passed_s)
        assert (owner.tripped, owner.written()) == ([], []), passed_s
    owner.connection.check(NOW + STALL_S + 0.001)
    assert owner.tripped == [guard]
    ends = [payload for kind, _, payload in split(owner.connection.data_to_send()) if kind == frames.GOAWAY]
    assert [int.from_bytes(payload[4:8], "big") for payload in ends] == ([] if code is None else [code])


def test_a_connection_that_ended_waits_for_its_answers_as_long_as_a_client_may_stall() -> None:
    owner = Owner()
    calls = owner.connection.receive(START + call(1) + frame(frames.PUSH_PROMISE, 0, 1), NOW)
    assert calls is not None
    assert owner.written()[-1] == (frames.GOAWAY, 0)
    assert owner.phase() is Phase.ENDING
    owner.connection.check(NOW)
    owner.connection.check(NOW + STALL_S)
    assert owner.phase() is Phase.ENDING
    owner.connection.check(NOW + STALL_S + 0.001)
    assert owner.phase() is Phase.CUT


def test_it_is_finished_once_what_it_owes_is_written() -> None:
    owner = Owner()
    calls = owner.connection.receive(START + call(1), NOW)
    assert calls is not None
    owner.connection.go_away(CloseReason.SHUTDOWN)
    assert owner.phase() is Phase.LEAVING
    owner.connection.receive(frame(PING, ACK, 0, GOAWAY_PING) + call(3), NOW)
    assert owner.written()[-3:] == [(PING, 0), (frames.GOAWAY, 0), (frames.RST_STREAM, 3)]
    assert owner.phase() is Phase.DRAINING
    owner.answer(calls, [OK])
    assert owner.written()[-1] == (HEADERS, 1)
    assert owner.phase() is Phase.FINISHED


def test_one_turn_of_what_came_at_once_is_handled_each_time() -> None:
    owner = Owner(max_turn_frames=2)
    assert owner.connection.receive(START, NOW) is None
    seen = [owner.connection.receive(b"".join(call(stream) for stream in (1, 3, 5, 7, 9)), NOW)]
    while owner.connection.has_more:
        seen.append(owner.connection.receive(b"", NOW))
    assert [calls and calls.stream_ids for calls in seen] == [[1, 3], [5, 7], [9]]


def test_a_connection_that_is_finished_has_no_more_turns() -> None:
    """Else the event loop would give it one after the other, for ever."""
    owner = Owner(max_turn_frames=2)
    owner.connection.receive(START, NOW)
    owner.connection.go_away(CloseReason.SHUTDOWN)
    owner.connection.receive(frame(PING, ACK, 0, GOAWAY_PING) + frame(PING, 0, 0, b"12345678") * 3, NOW)
    owner.connection.data_to_send()
    assert (owner.phase(), owner.connection.has_more) == (Phase.FINISHED, True)
    assert owner.connection.receive(b"", NOW) is None
    assert not owner.connection.has_more


def test_late_data_of_calls_that_were_given_up_ends_no_connection() -> None:
    """However many they are, and though memory was given back meanwhile."""
    owner = Owner()
    streams, body = range(1, 401, 2), prefixed(MESSAGE)
    for stream in streams:
        begun = frame(HEADERS, END_HEADERS, stream, BLOCK) + frame(DATA, 0, stream, body[:-1])
        owner.connection.receive((START if stream == 1 else b"") + begun, NOW)
    for passed_s in (STALL_S + 1, STALL_S + SHRINK_S + 2):
        owner.connection.check(NOW + passed_s)
    assert {stream for kind, stream in owner.written() if kind == DATA} == set(streams)
    late = b"".join(frame(DATA, END_STREAM, stream, body[-1:]) for stream in streams)
    calls = owner.connection.receive(call(401) + late, NOW + 2 * STALL_S)
    assert calls is not None
    assert calls.stream_ids == [401]
    while owner.connection.has_more:
        owner.connection.receive(b"", NOW + 2 * STALL_S)
    assert owner.phase() is Phase.OPEN


HEALTH_CHECK = call(1, b"", block("/grpc.health.v1.Health/Check"))


@pytest.mark.parametrize("sent", [b"", START[:20], START, START + frame(PING, 0, 0, bytes(8))])
def test_it_is_unused_if_nothing_was_asked_for_a_second(sent: bytes) -> None:
    owner = Owner()
    owner.connection.receive(sent, NOW)
    assert owner.connection.unused(NOW + START_S - 0.001) is None
    assert owner.connection.unused(NOW + START_S) == (False, NOW)
    assert owner.connection.is_fresh()


def test_it_is_unused_a_while_after_its_last_answer() -> None:
    owner = Owner()
    calls = owner.connection.receive(START + call(1), NOW)
    assert calls is not None
    assert owner.connection.unused(NOW + IDLE_S) is None  # the call is open
    assert not owner.connection.is_fresh()
    owner.answer(calls, [OK])
    assert owner.connection.unused(NOW + IDLE_S - 0.001) is None
    assert owner.connection.unused(NOW + IDLE_S) == (True, NOW)
    assert not owner.connection.is_fresh()


def test_a_health_check_is_a_use() -> None:
    owner = Owner()
    owner.connection.receive(START, NOW)
    owner.connection.receive(HEALTH_CHECK, NOW + 2)
    assert owner.connection.unused(NOW + 2 + IDLE_S - 0.001) is None
    assert owner.connection.unused(NOW + 2 + IDLE_S) == (True, NOW + 2)
    assert not owner.connection.is_fresh()


def test_memory_that_another_connection_needs_flushes_this_one() -> None:
    tripped: list[Guard] = []
    state = state_of(tripped.append, max_unfinished_bytes=20_000)
    first, other = Owner(state), Owner(state)
    head = START + frame(HEADERS, END_HEADERS, 1, BLOCK)
    body = (16_000).to_bytes(5, "big") + bytes(15_000)
    first.connection.receive(head + frame(DATA, 0, 1, body), NOW)
    assert first.flushes == 0
    other.connection.receive(head + frame(DATA, 0, 1, body[:10_000]), NOW)
    assert first.flushes == 1
    assert (other.flushes, tripped) == (0, [Guard.MESSAGE])
