"""One client's HTTP/2 connection (RFC 9113), without I/O: bytes in, calls out; answers in, bytes out.

Its owner passes it the bytes that came, and the time, and writes what `data_to_send` returns. `phases.py` has a table
of the phases that it goes through, and `closing.py` one of the reasons for which it is closed.
"""

from collections.abc import Iterable
from typing import Final

from extauth.limiter.counters import Uncounted
from extauth.limiter.templates import Answer
from extauth.transport.batching import Shed
from extauth.transport.engine import Guard
from extauth.transport.h2 import frames, preface
from extauth.transport.h2.closing import CloseReason, Unused
from extauth.transport.h2.control_frames import GOAWAY_PING, Control
from extauth.transport.h2.flow_control import Message
from extauth.transport.h2.frames import HEAD, MAX_STREAM_ID, MIN_MAX_FRAME_SIZE, PREFACE, ErrorCode, H2Error
from extauth.transport.h2.phases import CUT, DRAINING, ENDING, FINISHED, LEAVING, OPEN, STARTING
from extauth.transport.h2.receiver import Receiver
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.server_state import ServerState
from extauth.transport.h2.streams import Streams
from extauth.transport.waiting import Caller, Calls

START_S: Final = 1.0  # unused after that if nothing was asked: Envoy sends its first call with the preface
IDLE_S: Final = 30.0  # unused so long after its last answer to a call or health check
SHRINK_S: Final = 3.0  # the time from the last frame until memory is given back


class Connection:
    """A connection that was accepted at `opened_at`; `caller` is the Caller of its calls.

    `caller.flush` is called when there is something to send although the owner has called no method: when another
    connection needs or gives back memory, and when an incomplete call expires.
    """

    def __init__(self, state: ServerState, caller: Caller, opened_at: float) -> None:
        context = state.context
        self.phase = STARTING
        self.has_more = False  # more has come than one turn handles: call `receive` again in the next one
        self.is_http2 = True  # False: TLS has negotiated another protocol
        self._caller: Caller | None = caller
        self._batcher = context.batcher
        self._on_guard = context.on_guard
        limits = self._limits = context.limits
        self._streams = Streams(limits.max_streams, state.unfinished, context.batcher.deadlines)
        self._sender = Sender(self._streams)
        self._control = Control(limits, context.on_guard, self._streams, self._sender, self)
        self._receiver = Receiver(state, self._streams, self._sender, self._control, self)
        self.opened_at = opened_at
        self._rest = b""
        # The largest frame must fit into a turn, or the connection would never get past it.
        self._turn_bytes = max(limits.max_turn_bytes, HEAD.size + MIN_MAX_FRAME_SIZE + len(PREFACE))
        self._reading = False  # while frames are handled: whatever they send is written afterwards
        self._greeted = False
        self._announced = MAX_STREAM_ID  # the last stream, by GOAWAY
        self._leaving = CloseReason.SHUTDOWN
        self._ending_since = 0.0
        self._shrunk = 0.0  # when it last gave back memory

    # Bytes in and out

    def receive(self, data: bytes, now: float) -> Calls | None:
        """Handle one turn's share of the bytes and keep the rest; returns the calls in it, or None without any."""
        caller = self._caller
        self.has_more = False
        if self.phase >= ENDING or caller is None:
            return None
        if self._rest:
            data = self._rest + data
        calls = Calls(caller, now)
        requests = self._receiver.requests
        turn = data if len(data) <= self._turn_bytes else data[: self._turn_bytes]
        error: H2Error | None = None
        self._reading = True
        try:
            at = self._receiver.read(turn, calls) if self.phase is not STARTING else self._read_preface(turn, calls)
        except H2Error as wrong:
            error = H2Error(wrong.code, str(wrong))  # without tracebacks, which would lead back to this frame
        finally:
            self._reading = False
        if error is not None:
            self._end(error)
        else:
            rest = self._rest = data[at:]
            # An incomplete preface is not a frame.
            self.has_more = len(rest) >= HEAD.size and STARTING < self.phase < ENDING and frames.can_be_handled(rest)
            if self._sender.window_grew:
                self._sender.pump()
            if requests.unacknowledged >= requests.window >> 1:
                requests.give_back()
        return calls if calls.plans else None

    def _read_preface(self, data: bytes, calls: Calls) -> int:
        if not self.is_http2 or not preface.begins(data):
            if preface.is_http1(data):
                self._sender.send(preface.NOT_HTTP2)
            elif self.is_http2:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "this is a gRPC server: HTTP/2 with prior knowledge")
            self.phase = FINISHED  # CloseReason.NOT_HTTP2
            return len(data)
        self._greet()
        if not preface.has_settings(data):
            return 0
        self.phase = OPEN
        return self._receiver.read(data[len(PREFACE) :], calls) + len(PREFACE)

    def _greet(self) -> None:
        """Send our SETTINGS once, and only when the client has proved to use HTTP/2: curl would print them."""
        if not self._greeted:
            self._greeted = True
            self._sender.send(preface.greeting(self._limits.max_streams))

    def data_to_send(self) -> bytes:
        """Take the bytes that are to be written; this may move the connection on to FINISHED."""
        if self.phase is not OPEN:
            streams = self._streams
            if (self.phase is DRAINING and not len(streams)) or (
                self.phase is ENDING and not streams.waiting  # answers that wait for a window are lost: nothing is read
            ):
                self.phase = FINISHED
        out = self._sender.out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        return data

    # Called by the batcher

    def drop_ended(self, calls: Calls) -> None:
        """Drop the calls that were cancelled or have expired, before they are counted."""
        if self._streams.ended_calls:
            self._streams.drop_ended(calls)

    def expire(self, calls: Calls, now: float) -> None:
        """Answer the calls whose deadline has come."""
        self._control.answered = now
        for plan, number in self._streams.expire(calls, now):
            message = self._batcher.shed(plan, Shed.TIMEOUT, calls, number)
            if isinstance(message, Uncounted):
                self._sender.fail(number, message)
            else:
                self._sender.answer(number, message)

    def answer(self, calls: Calls, messages: list[Answer], now: float) -> None:
        """Put the answers into frames; Uncounted: the call fails."""
        self._control.answered = now
        ended = self._streams.settle(calls.stream_ids)
        answers: Iterable[tuple[int, Answer]] = zip(calls.stream_ids, messages, strict=True)
        if ended:
            answers = [each for each in answers if each[0] not in ended]
        self._sender.answer_all(answers)

    # Called by the owner

    def check(self, now: float, *, hurry: bool = False) -> None:
        """End what has stalled, with `hurry` all incomplete requests; give back memory; called every second or so."""
        since = now - self._limits.stall_timeout_s
        block = self._receiver.block
        if self.phase >= ENDING:
            self._ending_since = self._ending_since or now
            if self.phase is ENDING and self._ending_since < since:
                self.phase = CUT
        elif self.phase is STARTING and self.opened_at < since:
            self._trip(CloseReason.SLOW_START)
        elif block is not None and block.arrived < since:
            self._trip(CloseReason.SLOW_HEADERS)
        else:
            self._check_streams(now, since, hurry=hurry)
            self._shrink(now)

    def _check_streams(self, now: float, since: float, *, hurry: bool) -> None:
        for number, request in list(self._streams.open.items()):
            request.progressed = request.progressed or now
            if hurry or request.progressed < since:
                self.give_up(number)
        for number, sending in list(self._streams.sending.items()):
            sending.since = sending.since or now
            if sending.since < since:
                self._on_guard(Guard.SLOW_READER)
                self._sender.reset(number, ErrorCode.CANCEL)

    def _shrink(self, now: float) -> None:
        idle_s = 0 if self._streams.used() else now - self._control.now
        if idle_s > SHRINK_S and self._shrunk < self._control.now:
            self._shrunk = now
            self._streams.shrink()
            self._receiver.shrink()
        if idle_s > 3 * self._limits.stall_timeout_s:
            self._streams.trim_ignored()

    def is_fresh(self) -> bool:
        """Whether no call and no health check is open or has been answered yet; not if it is being ended."""
        return self.phase < LEAVING and not self._streams.used() and self._control.last_answer() < self.opened_at

    def unused(self, now: float) -> Unused | None:
        """None if it is in use, or is being ended."""
        if self.phase >= LEAVING or self._streams.used():
            return None
        fresh = self.is_fresh()
        since = self.opened_at if fresh else self._control.last_answer()
        return Unused(not fresh, since) if now - since >= (START_S if fresh else IDLE_S) else None

    def health_changed(self) -> None:
        """Send the health to the client, if it watches it."""
        self._receiver.requests.watch()

    def turn_away(self, reason: CloseReason) -> None:
        """Refuse the connection."""
        self._greet()
        self._sender.send(reason.goaway(0))
        self.phase = FINISHED

    def go_away(self, reason: CloseReason) -> None:
        """Close gracefully (RFC 9113 §6.8): announce it, learn by a PING that it was heard, and only then refuse."""
        if self.phase is STARTING:
            self.phase = FINISHED
        elif self.phase is OPEN:
            self.phase = LEAVING
            self._leaving = reason
            self._sender.send(reason.goaway(MAX_STREAM_ID))
            self._sender.send(frames.frame(frames.PING, 0, 0, GOAWAY_PING))

    def refuse_new(self) -> None:
        """Refuse new streams from now on: the client has heard that we leave, or has had the time to."""
        if self.phase in (OPEN, LEAVING):
            self.phase = DRAINING
            self._streams.draining = True
            self._receiver.requests.unwatch()
            self._receiver.requests.end_reflection()
            self._announced = self._streams.last_id
            self._sender.send(self._leaving.goaway(self._announced))

    def close(self) -> None:
        """Drop everything, for the connection is gone, and leave no reference cycle.

        The garbage collector hardly ever visits objects that are as old as a connection gets.
        """
        self.phase = FINISHED
        self._streams.clear()
        self._receiver.close()
        self._control.close()
        self._caller = None

    # Called by its parts, and by what connections share: see streams.Owner

    def give_up(self, number: int) -> None:
        """End an incomplete request: it has stalled, or its call has expired."""
        self._receiver.requests.give_up(number)
        self._flush()

    def grant(self, number: int, window: int) -> None:
        """Let the client send `window` more bytes on the stream."""
        self._receiver.requests.grant(number, window)
        self._flush()

    def drop_newest(self, spare: Message | None) -> None:
        """End the newest request that holds memory, other than `spare`; if there is none, give up the header block."""
        if not self._receiver.requests.drop_newest(spare):
            self._receiver.end_block()
            CloseReason.HEADER_MEMORY.count(self._on_guard)
            if not self._reading:  # else whoever reads finds the block gone
                self._end(CloseReason.HEADER_MEMORY.error())
        self._flush()

    def _flush(self) -> None:
        if not self._reading and self._caller is not None:
            self._caller.flush()

    # Errors

    def _trip(self, reason: CloseReason) -> None:
        reason.count(self._on_guard)
        self._end(reason.error())

    def _end(self, error: H2Error) -> None:
        """Read no more, and answer the calls received: GOAWAY names the last stream that gets an answer."""
        if self.phase >= ENDING:
            return
        streams = self._streams
        self._greet()
        # RFC 9113 §6.8: the number must not grow.
        last = min(streams.last_whole(), self._announced)
        self._sender.send(frames.goaway(last, error.code, str(error)))
        self._receiver.requests.unwatch()
        self._receiver.end_block()
        for number in list(streams.open):  # these requests were not processed (RFC 9113 §8.7)
            self._sender.reset(number, ErrorCode.REFUSED_STREAM)
        self.phase = ENDING
        self._rest = b""
