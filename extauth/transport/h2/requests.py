"""Requests from their first DATA to their answer or to the batcher: bodies, messages, and calls that are refused.

Envoy lets a request through if its call fails. So a call that one of Envoy's clients can shape always gets an answer:
OVER_LIMIT if the call is too large or never whole, the failure policy's if too many calls wait.
"""

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.limiter.counters import Uncounted
from extauth.limiter.plan import Plan
from extauth.transport.batching import Shed
from extauth.transport.engine import Guard
from extauth.transport.h2 import frames
from extauth.transport.h2.control_frames import Control
from extauth.transport.h2.flow_control import LARGEST_WINDOW, Message
from extauth.transport.h2.frames import DEFAULT_WINDOW, END_STREAM, ErrorCode, H2Error, unpadded
from extauth.transport.h2.grpc_framing import GrpcError, Status, plain_block, refusal_block, trailer_block, unframe
from extauth.transport.h2.reflection_calls import ReflectionCalls
from extauth.transport.h2.request_head import REFLECTION_METHODS, Head, Method
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.server_state import ServerState
from extauth.transport.h2.streams import MIN_PROGRESS, Owner, Request, Streams
from extauth.transport.reflection import IDLE, MAX_REQUEST_BYTES
from extauth.transport.waiting import Calls


class Requests:
    """The requests of one connection."""

    def __init__(
        self,
        state: ServerState,
        streams: Streams,
        sender: Sender,
        control: Control,
        owner: Owner,
    ) -> None:
        self.inflated = 0  # bytes that decompressing has added in this turn
        self.unacknowledged = 0  # bytes of DATA for which the connection's window is not given back yet
        self.window = DEFAULT_WINDOW  # of the connection: bytes that the client may send before it gets some back
        self.calls: Calls  # the calls of this turn
        context = state.context
        self._state = state
        self._reflection = ReflectionCalls(state, streams, sender, control)
        self._planner = context.planner
        self._batcher = context.batcher
        self._limits = context.limits
        self._on_guard = context.on_guard
        self._streams = streams
        self._sender = sender
        self._control = control
        self._owner = owner

    def close(self) -> None:
        """No more frames come: drop all references back to the connection."""
        for name in ("_owner", "calls"):
            vars(self).pop(name, None)

    def refuse_stream(self, number: int, head: Head, *, end_stream: bool) -> None:
        """Deny a call for which no stream is left; raises H2Error for any other request."""
        if not head.limits:
            raise H2Error(ErrorCode.REFUSED_STREAM, "too many streams", number)
        self._on_guard(Guard.MESSAGE)
        self._deny(number, cut=not end_stream)

    def _deny(self, number: int, *, cut: bool = False) -> None:
        """Answer OVER_LIMIT to a call that cannot be evaluated."""
        self._control.answered = self._control.now
        self._sender.answer(number, self._batcher.too_large, cut=cut)

    def on_data(self, flags: int, number: int, payload: bytes) -> None:
        """Handle a DATA frame; raises H2Error."""
        streams = self._streams
        size = len(payload)
        content = unpadded(flags, payload)
        self.unacknowledged += size
        request = streams.open.get(number)
        if request is None:
            if number > streams.last_id or not number & 1:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is not open")
            streams.check_late_frame(number)
            self._control.spend()
            return
        end_stream = bool(flags & END_STREAM)
        if not content and not end_stream:
            self._control.spend()
        self._add(request, size, content, end_stream=end_stream)

    def _add(self, request: Request, size: int, content: bytes, *, end_stream: bool) -> None:
        """Add to a body the `content` of a frame of `size` bytes."""
        number = request.number
        if size > request.window:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows", number)
        request.window -= size
        before = request.received
        request.received += len(content)
        if request.head.method in REFLECTION_METHODS:
            self._reflect(request, size, content, end_stream=end_stream)
            return
        if request.received - request.progress >= MIN_PROGRESS:
            request.progress, request.progressed = request.received, self.calls.arrived
        kept = 0
        if request.head.refusal is None and not request.head.oversized:
            request.body += content
            kept = len(content)
        elif request.received > self._limits.max_message_bytes:
            self._give_up(request, whole=end_stream)
            return
        if kept < size and not end_stream:
            request.window += size - kept
            self._sender.send(frames.window_update(number, size - kept))
        known = len(request.body) >= 5
        length = int.from_bytes(request.body[1:5], "big") if known else 0
        if known and length > self._limits.max_message_bytes:
            self._give_up(request, whole=end_stream)
        elif known and len(request.body) > length + 5:
            self._streams.complete(number)
            self._refuse(number, Status.INTERNAL, "a unary call needs one whole message", cut=not end_stream)
        elif end_stream:
            self.complete(number, request)
        elif kept:
            self._hold(request, min(request.received, DEFAULT_WINDOW) - min(before, DEFAULT_WINDOW))
            missing = length + 5 - request.received - request.window
            if missing > 0 and not request.wanted and number in self._streams.open:
                self._state.unfinished.ask(request, missing)

    def _reflect(self, request: Request, size: int, content: bytes, *, end_stream: bool) -> None:
        """Answer the messages that a frame of a reflection call completes."""
        if not request.charged:
            self._hold(request, MAX_REQUEST_BYTES + 5)  # what is kept of a message with its prefix is never more
        if request.number in self._streams.open:
            self._reflection.on_data(request, size, content, end_stream=end_stream)
        if end_stream and request.number in self._streams.open:
            self.complete(request.number, request)

    def give_back(self) -> None:
        """Give the connection's window back to the client; enlarge it if there is memory for what it may send."""
        if self.window < LARGEST_WINDOW and self._state.unfinished.room_to_grow():
            self.unacknowledged += LARGEST_WINDOW - self.window
            self.window = LARGEST_WINDOW
        self._sender.send(frames.window_update(0, self.unacknowledged))
        self.unacknowledged = 0

    def _hold(self, request: Request, size: int) -> None:
        """Reserve memory for the part of a message that came; this message or another may be given up for it."""
        if size:
            self._state.unfinished.charge(self._owner, request, size)

    def grant(self, number: int, window: int) -> None:
        """Let the client send `window` more bytes on the stream."""
        request = self._streams.open[number]
        request.window += window
        request.progressed = 0.0  # it waited for us: the client's time begins at the next check
        self._sender.send(frames.window_update(number, window))

    def drop_newest(self, spare: Message | None) -> bool:
        """End the newest request that holds memory, other than `spare`; returns whether there is one."""
        held = (request for request in reversed(self._streams.open.values()) if request.charged)
        newest = next((request for request in held if request is not spare), None)
        if newest is not None:
            self._give_up(newest)
        return newest is not None

    def give_up(self, number: int) -> None:
        """End an incomplete request: it has stalled, or its call has expired."""
        self._give_up(self._streams.open[number], Guard.SLOW_REQUEST)

    def _give_up(self, request: Request, guard: Guard = Guard.MESSAGE, *, whole: bool = False) -> None:
        """End a request that cannot be evaluated: OVER_LIMIT for a call whose refusal would let the caller pass."""
        number, head = request.number, request.head
        if head.method in REFLECTION_METHODS:
            self._reflection.give_up(request, IDLE)
            return
        self._on_guard(guard)
        if head.limits:
            self._streams.complete(number)
            self._deny(number, cut=not whole)
        else:
            self._sender.reset(number, ErrorCode.CANCEL)

    def watch(self) -> None:
        """Send the health to the streams that watch it: it has changed."""
        health = self._state.health
        for number, service in self._streams.watching.items():
            if service in health.changed:
                self._sender.go_on(number, health.status(service))

    def unwatch(self) -> None:
        """End the streams that watch the health."""
        for number in list(self._streams.watching):
            self._sender.respond(number, trailer_block(Status.UNAVAILABLE, "shutting down"), cut=False)

    def end_reflection(self) -> None:
        """End the reflection calls, which only the client would end."""
        for request in list(self._streams.open.values()):
            if request.head.method in REFLECTION_METHODS:
                self._reflection.give_up(request, "shutting down")

    def complete(self, number: int, request: Request) -> None:
        """Answer a request that is whole, or hand its call to the batcher."""
        self._streams.complete(number)
        head = request.head
        if head.content_length not in (None, request.received):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "content-length is not the body's length", number)
        if head.refusal is not None:
            status, text = head.refusal
            body = f"{text}\n".encode()
            self._sender.respond(number, plain_block(status, body), body, cut=False)
            return
        if head.oversized and head.limits:
            self._deny(number)
            return
        if head.method in REFLECTION_METHODS:
            self._reflection.on_end(request)
            return
        try:
            message = unframe(bytes(request.body), head.encoding, self._limits.max_message_bytes)
            self.inflated += max(len(message) - len(request.body), 0)
            if head.method is Method.SHOULD_RATE_LIMIT:
                self._submit(request, self._planner.plan(message))
            else:
                self._answer_health(number, head.method, message)
        except InvalidRequestError as error:
            self.refuse_invalid(number, error)
        except GrpcError as error:
            self._refuse(number, error.status, str(error))

    def _answer_health(self, number: int, method: Method, message: bytes) -> None:
        health = self._state.health
        self._control.health_answered = self._control.now
        if method is Method.HEALTH_WATCH and self._state.stopping:
            self._refuse(number, Status.UNAVAILABLE, "shutting down")
        elif method is Method.HEALTH_CHECK:
            self._sender.answer(number, health.check(message))
        else:
            service = health.service(message)
            self._streams.watch(number, service)
            self._sender.begin(number, health.status(service))

    def _submit(self, request: Request, plan: Plan) -> None:
        """Hand a call to the batcher, or answer it by the failure policy if there are too many."""
        batcher, calls, number = self._batcher, self.calls, request.number
        if request.head.parent is not None:
            calls.add_parent(number, request.head.parent)
        if request.shed or batcher.room() <= len(calls.plans):
            self._control.answered = self._control.now
            why = Shed.STREAMS if request.shed else Shed.WAITING_CALLS
            shed = batcher.shed(plan, why, calls, number)
            if isinstance(shed, Uncounted):
                self._refuse(number, Status.UNAVAILABLE, "too many calls wait")
            else:
                self._sender.answer(number, shed)
            return
        calls.plans.append(plan)
        calls.stream_ids.append(number)
        calls.deadline = min(calls.deadline, request.deadline)
        self._streams.wait(request)

    def refuse_invalid(self, number: int, error: InvalidRequestError) -> None:
        """Answer a call that is invalid, or too large to be evaluated."""
        if isinstance(error, RequestTooLargeError):
            self._on_guard(Guard.MESSAGE)
            self._deny(number)
            return
        self._control.answered = self._control.now
        self._on_guard(Guard.INVALID_CALL)
        self._refuse(number, Status.INVALID_ARGUMENT, str(error))

    def _refuse(self, number: int, status: Status, text: str, *, cut: bool = False) -> None:
        self._sender.respond(number, refusal_block(status, text), cut=cut)
