"""One client's connection to the h2 engine: bytes in, calls out; answers in, bytes out (RFC 9113)."""

import asyncio
from collections.abc import MutableSet
from typing import Final, cast

from extauth.transport.batching import Shed
from extauth.transport.engine import MAX_BLOCK_BYTES, Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.control_frames import Control
from extauth.transport.h2.frames import (
    ACK,
    HEAD,
    MAX_STREAM_ID,
    MIN_MAX_FRAME_SIZE,
    PREFACE,
    ErrorCode,
    H2Error,
)
from extauth.transport.h2.grpc_framing import Status, refusal_block
from extauth.transport.h2.receiver import Receiver
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.server_state import ServerState
from extauth.transport.h2.streams import Streams
from extauth.transport.waiting import Calls

CLOSE_DELAY_S: Final = 1.0
HALF_SENT_S: Final = 1.0  # where room for connections is short, so long a client may take to begin,
IDLE_S: Final = 30.0  # and so long it may go without a call
SHRINK_S: Final = 3.0  # after what came last, memory is given back
GOAWAY_PING: Final = b"goaway\x00\x00"

_HTTP1 = (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"DELE", b"PATC")
_NOT_HTTP2_TEXT = (
    b"This is extauth's gRPC port, for Envoy's rate limit filter: it serves HTTP/2 only.\n"
    b"/metrics, /healthz, /readyz and /rules are at EXTAUTH_ADMIN_LISTEN; `extauth check` makes calls to this port.\n"
)
_NOT_HTTP2 = (
    b"HTTP/1.1 415 Unsupported Media Type\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_NOT_HTTP2_TEXT), _NOT_HTTP2_TEXT)
)


def _holds_a_frame(data: bytes) -> bool:
    """Whether another look at it would bring more; `data` is not shorter than a frame's head."""
    length = int.from_bytes(data[:3], "big")
    return length > MIN_MAX_FRAME_SIZE or len(data) >= HEAD.size + length


class Connection(asyncio.Protocol):
    """`asyncio` calls the methods of Protocol, the Batcher those of Caller; `connections` are all that are open."""

    def __init__(self, state: ServerState, connections: "MutableSet[Connection]") -> None:
        context = state.context
        self._state = state
        self._connections = connections
        self._batcher = context.batcher
        self._clock = context.clock
        self._on_guard = context.on_guard
        limits = self._limits = context.limits
        self._streams = Streams(limits.max_streams, state.unfinished, context.batcher.deadlines)
        self._sender = Sender(self._streams)
        self._control = Control(limits, context.on_guard, self._streams, self._sender, self._pong)
        self._receiver = Receiver(state, self._streams, self._sender, self._control, end=self._end, flush=self.flush)
        self._made = self._clock()
        self._rest = b""
        self._turn_scheduled = False
        # A frame must fit in, or its connection would stand still.
        self._turn_bytes = max(limits.max_turn_bytes, HEAD.size + MIN_MAX_FRAME_SIZE + len(PREFACE))
        self._started = False  # the preface has come
        self._greeted = False
        self.leaving = False  # it was told to go away
        self._announced = MAX_STREAM_ID  # the last stream, by GOAWAY
        self._is_http2 = True
        self._closing = False  # nothing more is read
        self._ending = 0.0  # since when it closes once what it was asked is answered
        self._paused_since: float | None = None
        self._shrunk = 0.0  # when it last gave back what it does not need

    # The life of a connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or turn it away."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        tls = transport.get_extra_info("ssl_object")
        self._is_http2 = tls is None or tls.selected_alpn_protocol() == "h2"  # RFC 9113 §3.2
        if self._state.stopping:  # its TLS handshake took so long
            self._turn_away(ErrorCode.NO_ERROR, "shutting down")
            return
        if len(self._connections) >= self._limits.max_connections:
            self._on_guard(Guard.CONNECTIONS)
            self._turn_away(ErrorCode.ENHANCE_YOUR_CALM, "too many connections")
            return
        self._connections.add(self)

    def _greet(self) -> None:
        """Send our SETTINGS, once; not before the client has shown that it speaks HTTP/2: curl would print them."""
        if self._greeted:
            return
        self._greeted = True
        greeting = {
            frames.SETTINGS_MAX_CONCURRENT_STREAMS: self._limits.max_streams,
            # Not what is accepted, for a client would fail by itself what is answered OVER_LIMIT here.
            frames.SETTINGS_MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
        }
        self._sender.send(frames.settings(greeting))

    def _turn_away(self, code: ErrorCode, reason: str) -> None:
        self._greet()
        self._sender.send(frames.goaway(0, code, reason))
        self.flush()
        self._closing = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Handle what came; the calls among it are handed on together."""
        if self._closing:
            return
        if self._rest:
            data = self._rest + data
        if self._turn_scheduled:
            self._rest = data
        else:
            self._handle(data)

    def _turn(self) -> None:
        """Handle more of what came at once; what came after it is read once that is done."""
        self._turn_scheduled = False
        if not self._closing:
            self._handle(self._rest)
        if not self._turn_scheduled and self._paused_since is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _next_turn(self) -> None:
        """Let others have theirs first."""
        self._turn_scheduled = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._turn)

    def _handle(self, data: bytes) -> None:
        calls = Calls(self, self._clock())
        receiver = self._receiver
        receiver.requests.reading = True
        error: H2Error | None = None
        now = data if len(data) <= self._turn_bytes else data[: self._turn_bytes]
        try:
            at = receiver.read(now, calls) if self._started else self._read_preface(now, calls)
            self._rest = data[at:]
            waits = self._started and not self._closing and len(self._rest) >= HEAD.size
            if waits and _holds_a_frame(self._rest):  # what there is of a preface is no frame
                self._next_turn()
        except H2Error as wrong:
            error = H2Error(wrong.code, str(wrong))  # without tracebacks, which would lead back to this frame
        finally:
            receiver.requests.reading = False
        if calls.plans:
            self._batcher.submit(calls)
        if error is not None:
            self._end(error)
            return
        if self._sender.window_grew:
            self._sender.pump()
        receiver.requests.give_back()
        self.flush()

    def eof_received(self) -> bool:
        """Close: no client half-closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and leave no cycle: the collector hardly ever looks at what is as old as a connection gets."""
        self._closing = True
        self._ending = 0.0
        self._connections.discard(self)
        self._streams.clear()
        self._receiver.close()
        self._control.close()

    def pause_writing(self) -> None:
        """Read no more from a client that reads too slowly."""
        self._paused_since = self._clock()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on: it has caught up."""
        self._paused_since = None
        if not self._turn_scheduled:
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """End what is stalled; called every second or so."""
        since = now - self._limits.stall_timeout_s
        block = self._receiver.block
        if self._closing:
            if self._ending and self._ending < since:
                self._transport.abort()
            return
        if not self._started and self._made < since:
            self._trip(Guard.SLOW_START, ErrorCode.SETTINGS_TIMEOUT, "no preface and SETTINGS in time")
        elif self._paused_since is not None and self._paused_since < since:
            self._on_guard(Guard.SLOW_READER)
            self._transport.abort()
        elif block is not None and block.arrived < since:
            self._trip(Guard.SLOW_REQUEST, ErrorCode.ENHANCE_YOUR_CALM, "a header block is not finished in time")
        else:
            self._check_streams(now, since)
            idle_s = 0 if self._streams.used() else now - self._control.now
            if idle_s > SHRINK_S and self._shrunk < self._control.now:
                self._shrunk = now
                self._streams.shrink()
                self._receiver.shrink()
            if idle_s > 3 * self._limits.stall_timeout_s:
                self._streams.trim_ignored()

    def _check_streams(self, now: float, since: float) -> None:
        for number, request in list(self._streams.open.items()):
            request.progressed = request.progressed or now
            if request.progressed < since:
                self._receiver.requests.give_up(number)
        for number, sending in list(self._streams.sending.items()):
            sending.since = sending.since or now
            if sending.since < since:
                self._on_guard(Guard.SLOW_READER)
                self._sender.reset(number, ErrorCode.CANCEL)
        self.flush()

    def unused_since(self, now: float) -> float | None:
        """Since when nobody uses it; None: it is in use, or is being ended.

        It is unused where its client has not begun for a second, and where no call has been open for IDLE_S.
        """
        if self._closing or self.leaving or self._streams.used():
            return None
        if not self._started:
            return self._made if now - self._made >= HALF_SENT_S else None
        since = max(self._made, self._control.answered)
        return since if now - since >= IDLE_S else None

    def end_unused(self) -> None:
        """Make room for others: at once where the client has not begun, else gracefully."""
        if self._started:
            self.go_away()
        else:
            self.abort()

    def go_away(self) -> None:
        """Close gracefully (RFC 9113 §6.8): announce it, learn by a PING that it was heard, and only then refuse."""
        if self._closing or self.leaving:
            return
        self.leaving = True
        if not self._started:
            self._close()
            return
        self._sender.send(frames.goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR, "shutting down"))
        self._sender.send(frames.frame(frames.PING, 0, 0, GOAWAY_PING))
        self.flush()
        asyncio.get_running_loop().call_later(CLOSE_DELAY_S, self._refuse_unheard)

    def health_changed(self) -> None:
        """Let the client know, if it watches the health."""
        self._receiver.requests.watch()
        self.flush()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _pong(self, payload: bytes) -> None:
        if payload == GOAWAY_PING:
            self._refuse_new()

    def _refuse_unheard(self) -> None:
        self._refuse_new()
        self.flush()

    def _refuse_new(self) -> None:
        """Without a flush, which may close: the PING's answer stands among other frames, which are read yet."""
        if not self._streams.draining and not self._closing:
            self._streams.draining = True
            self._receiver.requests.unwatch()
            self._announced = self._streams.last_id
            self._sender.send(frames.goaway(self._announced, ErrorCode.NO_ERROR, "shutting down"))

    def _trip(self, guard: Guard, code: ErrorCode, reason: str) -> None:
        self._on_guard(guard)
        self._end(H2Error(code, reason))

    def _end(self, error: H2Error) -> None:
        """Read no more, answer what was received, and close: GOAWAY names the last stream that gets an answer."""
        if self._closing:
            return
        streams = self._streams
        self._greet()
        # RFC 9113 §6.8: the number must not grow.
        self._sender.send(frames.goaway(min(streams.last_whole(), self._announced), error.code, str(error)))
        self._receiver.requests.unwatch()
        self._receiver.end_block()
        for number in list(streams.open):  # they were not processed (RFC 9113 §8.7)
            self._sender.reset(number, ErrorCode.REFUSED_STREAM)
        self._closing = True
        self._ending = self._clock()
        self.flush()

    def _close(self) -> None:
        """Half-close, and go a little later: a close with bytes unread would take what we wrote with it."""
        self._closing = True
        self._ending = 0.0
        self.flush()
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_DELAY_S, self._transport.abort)

    def _read_preface(self, data: bytes, calls: Calls) -> int:
        """RFC 9113 §3.4: a fixed text, then SETTINGS."""
        if not self._is_http2 or not PREFACE.startswith(data[: len(PREFACE)]):
            if data.startswith(_HTTP1):
                self._sender.send(_NOT_HTTP2)
                self._close()
                return len(data)
            if not self._is_http2:
                self._close()
                return len(data)
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "this is a gRPC server: HTTP/2 with prior knowledge")
        self._greet()
        if len(data) < len(PREFACE) + HEAD.size:
            return 0
        _, _, kind, flags, _ = HEAD.unpack_from(data, len(PREFACE))
        if kind != frames.SETTINGS or flags & ACK:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        self._started = True
        return self._receiver.read(data[len(PREFACE) :], calls) + len(PREFACE)

    # What the batcher asks and brings

    def drop_abandoned(self, calls: Calls) -> None:
        """Drop calls that were cancelled, or were answered by their own clock, before they are counted."""
        self._streams.drop_abandoned(calls)

    def expire(self, calls: Calls, now: float) -> None:
        """Answer the calls whose own time is over."""
        self._control.answered = now
        for plan, number in self._streams.expire(calls, now):
            self._put(number, self._batcher.shed(plan, Shed.TIMEOUT, counting=calls.counting))
        self.flush()

    def answer(self, calls: Calls, messages: list[bytes | None]) -> None:
        """Put the answers into frames."""
        answer = self._sender.answer
        self._control.answered = self._clock()
        heads = self._streams.settle(calls.stream_ids)
        for number, message, head in zip(calls.stream_ids, messages, heads, strict=True):
            if head is None:
                continue
            if message is None:
                self._put(number, None)
            else:
                answer(number, message)

    def _put(self, number: int, message: bytes | None) -> None:
        if message is None:
            unavailable = refusal_block(Status.UNAVAILABLE, "the counters' store does not answer")
            self._sender.respond(number, unavailable, cut=False)
        else:
            self._sender.answer(number, message)

    def flush(self) -> None:
        """Write what has gathered."""
        data = self._sender.take()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if self._ending:
            if not self._streams.waiting:  # what a window holds back can no longer be sent
                self._close()
        elif self._streams.draining and not self._closing and not len(self._streams):
            self._close()
