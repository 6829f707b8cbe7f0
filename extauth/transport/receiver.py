"""The receiving half of a connection: frames to calls (RFC 9113 §6 and §8, and gRPC over HTTP/2).

Frames are handled in the order in which they came, and every header block is decoded whatever becomes of its stream,
for the decoder's table is state. A call of the usual form, its head in one frame and its message in the next, takes a
short cut through `read`; all else goes through `_frame`, which knows the whole protocol.
"""

import asyncio
from dataclasses import dataclass, field

from extauth.errors import InvalidRequestError
from extauth.limiter.plan import Planner
from extauth.transport import frames
from extauth.transport.batching import Batcher, Calls
from extauth.transport.control import Control
from extauth.transport.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    MAX_STREAM_ID,
    MIN_MAX_FRAME_SIZE,
    PADDED,
    PRIORITIZED,
    ErrorCode,
    H2Error,
)
from extauth.transport.grpc import ENCODINGS, GrpcError, Status, plain_block, refusal_block, unframe
from extauth.transport.guards import Bounds, Guard, Tripped
from extauth.transport.head import Head, Method
from extauth.transport.health import Health
from extauth.transport.hpack import HeaderDecoder
from extauth.transport.sender import Sender
from extauth.transport.streams import Request, Streams

MAX_ECHO = 100  # characters of the client's that an answer repeats: each may become six bytes


@dataclass(frozen=True, slots=True)
class Service:
    """What the connections of a server share; no more are wanted once it is `stopping`."""

    planner: Planner
    batcher: Batcher
    health: Health
    bounds: Bounds
    tripped: Tripped
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


class HeaderBlock:
    """A header block that goes on in CONTINUATION frames."""

    __slots__ = ("arrived", "end_stream", "fragments", "frames", "itself", "stream")

    def __init__(self, stream: int, fragment: bytes, arrived: float, *, end_stream: bool, itself: bool) -> None:
        self.stream = stream
        self.fragments = bytearray(fragment)
        self.arrived = arrived
        self.end_stream = end_stream
        self.itself = itself
        self.frames = 0


class Receiver:
    """Reads what follows a connection's preface."""

    def __init__(self, service: Service, streams: Streams, sender: Sender, control: Control) -> None:
        self.draining = False  # no new streams
        self.block: HeaderBlock | None = None
        self._service = service
        self._bounds = service.bounds
        self._plan = service.planner.plan
        self._streams = streams
        self._sender = sender
        self._control = control
        self._decoder = HeaderDecoder(service.bounds.max_header_bytes, lambda: service.tripped(Guard.HEADERS))
        self._handlers = {
            **control.handlers,
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_continuation,
        }

    def close(self) -> None:
        """No more frames come: let go of what refers back to this."""
        self.block = None
        self._handlers.clear()
        vars(self).pop("_calls", None)  # of the last read, if there was any

    def read(self, data: bytes, calls: Calls) -> int:
        """Handle all whole frames; returns how many bytes they were. Raises H2Error for the connection."""
        at, size = 0, len(data)
        self._calls = calls
        self._control.now = calls.arrived
        now, plans, tags = calls.arrived, calls.plans, calls.tags
        streams = self._streams
        waiting, opened, blocked = streams.waiting, streams.open, self._sender.blocked
        known, plan = self._decoder.known, self._plan
        room, max_streams, max_message = self._service.batcher.room(), streams.most, self._bounds.max_message_bytes
        unpack = HEAD.unpack_from
        while size - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > MIN_MAX_FRAME_SIZE:
                raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than 16,384 bytes")
            end = at + 9 + length
            if end > size:
                break
            if kind == HEADERS and flags == END_HEADERS and self.block is None:
                block = data[at + 9 : end]
                head = known.get(block) or self._decoder.decode(block)
                if (
                    head.plain
                    and size - end >= 14
                    and streams.last < stream <= MAX_STREAM_ID
                    and stream & 1
                    and not self.draining
                    and len(waiting) + len(opened) + len(blocked) < max_streams
                ):
                    high, low, kind, flags, same = unpack(data, end)
                    length = high << 8 | low
                    finish = end + 9 + length
                    if (
                        kind == DATA
                        and flags == END_STREAM
                        and same == stream
                        and finish <= size
                        and length <= MIN_MAX_FRAME_SIZE
                        and int.from_bytes(data[end + 9 : end + 14], "big") == length - 5 <= max_message
                        and len(plans) < room
                        and head.content_length in (None, length)
                    ):
                        streams.last = stream
                        streams.owed += length
                        at = finish
                        try:
                            plans.append(plan(data[end + 14 : finish]))
                        except InvalidRequestError as error:
                            self._refuse_invalid(stream, error)
                            continue
                        tags.append(stream)
                        waiting[stream] = head
                        if head.timeout_s is not None and now + head.timeout_s < calls.deadline:
                            calls.deadline = now + head.timeout_s
                        continue
                self._frame(HEADERS, END_HEADERS, stream & MAX_STREAM_ID, b"", head)
            else:
                self._frame(kind, flags, stream & MAX_STREAM_ID, data[at + 9 : end])
            at = end
        return at

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, head: Head | None = None) -> None:
        """Handle a frame; `head` is what a whole header block says, where it is decoded already."""
        if self.block is not None and (kind != CONTINUATION or stream != self.block.stream):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a header block must go on without other frames in between")
        try:
            if head is not None:
                self._on_head(stream, head, end_stream=False, itself=False)
            elif kind in self._handlers:
                self._handlers[kind](flags, stream, payload)
            else:  # RFC 9113 §5.5: of a type that is not known
                self._control.spend()
        except H2Error as error:
            if not error.stream & 1 or error.stream > self._streams.last:  # RFC 9113 §6.4: an idle one cannot be reset
                raise
            self._control.spend_reset()
            self._streams.reset(error.stream, error.code)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        fragment = _unpadded(flags, payload)
        itself = False
        if flags & PRIORITIZED:
            if len(fragment) < 5:
                raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            itself = int.from_bytes(fragment[:4], "big") & MAX_STREAM_ID == stream
            fragment = fragment[5:]
        end_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._on_head(stream, self._decoder.decode(fragment), end_stream=end_stream, itself=itself)
        else:
            self.block = HeaderBlock(stream, fragment, self._calls.arrived, end_stream=end_stream, itself=itself)
            self._check_block(self.block)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        block = self.block
        if block is None:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block before it")
        block.fragments += payload
        block.frames += 1
        self._check_block(block)
        if flags & END_HEADERS:
            self.block = None
            head = self._decoder.decode(bytes(block.fragments))
            self._on_head(stream, head, end_stream=block.end_stream, itself=block.itself)

    def _check_block(self, block: HeaderBlock) -> None:
        if len(block.fragments) > self._bounds.max_header_bytes or block.frames > self._bounds.max_continuations:
            self._service.tripped(Guard.HEADERS)
            raise H2Error(ErrorCode.ENHANCE_YOUR_CALM, "a header block too large, or in too many frames")

    def _on_head(self, number: int, head: Head, *, end_stream: bool, itself: bool) -> None:
        """A request's head, or its trailers."""
        streams = self._streams
        request = streams.open.get(number)
        if request is not None:
            if not end_stream or not head.is_trailers or head.malformed:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "trailers that are none", number)
            self._complete(number, request)
            return
        if not number & 1:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client may open")
        if number <= streams.last:
            if number != streams.last and number not in streams and number not in streams.refused:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "stream numbers must grow")
            streams.late(number)
            self._control.spend()
            return
        streams.last = number
        if self.draining:
            streams.reset(number, ErrorCode.REFUSED_STREAM)
            return
        if len(streams) >= streams.most:
            self._service.tripped(Guard.STREAMS)
            raise H2Error(ErrorCode.REFUSED_STREAM, "too many streams", number)
        if itself:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself", number)
        if head.malformed or head.is_trailers:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, head.malformed or "a request without its pseudo-headers", number)
        refusal = _unserved(head)
        request = streams.open[number] = Request(head, self._calls.arrived)
        if refusal is not None:
            self._control.spend()
            streams.finish(number, whole=end_stream)
            self._sender.respond(number, refusal, cut=not end_stream)
        elif end_stream:
            self._complete(number, request)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        streams = self._streams
        size = len(payload)
        content = _unpadded(flags, payload)
        request = streams.open.get(number)
        if request is None:
            streams.owed += size
            if number > streams.last or not number & 1:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is not open")
            streams.late(number)
            self._control.spend()
            return
        end_stream = bool(flags & END_STREAM)
        if not content and not end_stream:
            self._control.spend()
        request.received += len(content)
        if request.head.refusal is not None:
            content = b""
        unneeded = size - len(content)
        streams.owed += unneeded
        if unneeded and not end_stream:
            self._sender.out.append(frames.window_update(number, unneeded))
        request.held += len(content)
        streams.held += len(content)
        request.body += content
        most = self._bounds.max_message_bytes
        if len(request.body) >= 5 and int.from_bytes(request.body[1:5], "big") > most:
            self._service.tripped(Guard.MESSAGE)
            streams.finish(number, whole=end_stream)
            text = f"a message holds at most {most} bytes"
            self._refuse(number, Status.RESOURCE_EXHAUSTED, text, cut=not end_stream)
        elif len(request.body) > most + 5:
            streams.finish(number, whole=end_stream)
            self._refuse(number, Status.INTERNAL, "a unary call needs one whole message", cut=not end_stream)
        elif end_stream:
            self._complete(number, request)

    def _complete(self, number: int, request: Request) -> None:
        """The request is whole."""
        streams = self._streams
        streams.finish(number, whole=True)
        head = request.head
        if head.content_length not in (None, request.received):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "content-length is not the body's length", number)
        if head.refusal is not None:
            status, text = head.refusal
            body = f"{text}\n".encode()
            self._sender.respond(number, plain_block(status, body), body, cut=False)
            return
        try:
            message = unframe(bytes(request.body), head.encoding, self._bounds.max_message_bytes)
            if head.method is Method.HEALTH_CHECK:
                self._sender.answer(number, self._service.health.check(message))
                return
            plan = self._plan(message)
        except InvalidRequestError as error:
            self._refuse_invalid(number, error)
            return
        except GrpcError as error:
            if error.status is Status.RESOURCE_EXHAUSTED:
                self._service.tripped(Guard.MESSAGE)
            self._refuse(number, error.status, str(error))
            return
        calls = self._calls
        if self._service.batcher.room() <= len(calls.plans):
            self._service.tripped(Guard.WAITING_CALLS)
            self._refuse(number, Status.RESOURCE_EXHAUSTED, "too many calls wait")
            return
        calls.plans.append(plan)
        calls.tags.append(number)
        streams.waiting[number] = head
        if head.timeout_s is not None:
            streams.deadlines[number] = request.arrived + head.timeout_s
            calls.deadline = min(calls.deadline, request.arrived + head.timeout_s)

    def refuse_newest(self) -> None:
        """Refuse the incomplete request that began last: what came of all of them has used the window up."""
        number = next(reversed(self._streams.open))
        self._service.tripped(Guard.MESSAGE)
        self._streams.finish(number, whole=False)
        self._refuse(number, Status.RESOURCE_EXHAUSTED, "too many incomplete requests", cut=True)

    def _refuse_invalid(self, number: int, error: InvalidRequestError) -> None:
        self._service.tripped(Guard.INVALID_CALL)
        self._control.spend_reset()
        self._refuse(number, Status.INVALID_ARGUMENT, str(error))

    def _refuse(self, number: int, status: Status, text: str, *, cut: bool = False) -> None:
        self._sender.respond(number, refusal_block(status, text), cut=cut)


def _unserved(head: Head) -> bytes | None:
    """The header block of the answer to a call that need not be whole to be refused."""
    if head.refusal is not None:  # plain HTTP clients want to be heard out
        return None
    if head.method is Method.UNKNOWN:
        return refusal_block(Status.UNIMPLEMENTED, f"no such method: {head.path[:MAX_ECHO]}")
    if head.encoding not in ENCODINGS:
        accepted = (b"grpc-accept-encoding", ",".join(ENCODINGS).encode())
        return refusal_block(Status.UNIMPLEMENTED, f"grpc-encoding {head.encoding[:MAX_ECHO]} is not served", accepted)
    return None


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "padding as long as its frame or longer")
    return payload[1 : len(payload) - payload[0]]
