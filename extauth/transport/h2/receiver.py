"""The receiving half of a connection: frames to calls (RFC 9113 §6 and §8, and gRPC over HTTP/2).

Frames are handled in the order in which they came. Every header block is decoded, even if its stream is refused, since
each one may change the decoder's table. A call of the usual form, its head in one frame and its message in the next,
takes a short cut in `read`; all other frames go through `_frame`, which implements the whole protocol.
"""

from struct import Struct

from extauth.errors import InvalidRequestError
from extauth.transport.engine import MAX_BLOCK_BYTES
from extauth.transport.h2 import frames
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.control_frames import Control
from extauth.transport.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_STREAM_ID,
    MIN_MAX_FRAME_SIZE,
    PRIORITIZED,
    ErrorCode,
    H2Error,
    unpadded,
)
from extauth.transport.h2.header_block import HeaderBlock
from extauth.transport.h2.hpack import HeaderDecoder
from extauth.transport.h2.request_head import Head, unserved
from extauth.transport.h2.requests import Requests
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.server_state import ServerState
from extauth.transport.h2.streams import Owner, Request, Streams
from extauth.transport.waiting import Calls

_FRAME_HEAD = Struct(">IBI")
"""As frames.HEAD, but the length and the type are one number."""
_CALL_HEAD = Struct(">IBIBI")
"""The head of a DATA frame with the prefix of the gRPC message in it."""

MAX_EXPANSION = 4  # in a turn, headers and messages may decode to this many times `max_turn_bytes`
MAX_TURN_WORK_US = 2000  # of planning in a turn; its last call may take as long again, and more


class Receiver:
    """Reads the frames after the preface."""

    def __init__(
        self,
        state: ServerState,
        streams: Streams,
        sender: Sender,
        control: Control,
        owner: Owner,
    ) -> None:
        self.block: HeaderBlock | None = None
        self.requests = Requests(state, streams, sender, control, owner)
        self._owner = owner
        context = state.context
        self._planner = context.planner
        self._batcher = context.batcher
        self._unfinished = state.unfinished
        self._reflects = state.reflection is not None
        self._limits = context.limits
        self._on_guard = context.on_guard
        self._max_decoded_bytes = MAX_EXPANSION * context.limits.max_turn_bytes
        self._streams = streams
        self._sender = sender
        self._control = control
        self._decoder = HeaderDecoder(context.limits.max_header_bytes, context.on_guard, traced=context.traced)
        self._handlers = {
            **control.handlers,
            frames.DATA: self.requests.on_data,
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_continuation,
        }

    def shrink(self) -> None:
        """Give back memory: no call is open."""
        self._decoder.known.clear()

    def close(self) -> None:
        """No more frames come: drop all references back to the connection."""
        self.end_block()
        vars(self).pop("_owner", None)
        self._handlers.clear()
        self.requests.close()

    def read(self, data: bytes, calls: Calls) -> int:  # noqa: PLR0912, PLR0915 - the hot loop, in one piece
        """Handle whole frames, as many as a turn has; returns how many bytes they were. Raises H2Error."""
        at, size = 0, len(data)
        self.requests.calls = calls
        self._control.now = calls.arrived
        now, plans, stream_ids = calls.arrived, calls.plans, calls.stream_ids
        streams, decoder, requests, planner = self._streams, self._decoder, self.requests, self._planner
        waiting, known, recall, work = streams.waiting, decoder.known, planner.recall, planner.work
        room, max_message, most = self._batcher.room(), self._limits.max_message_bytes, self._max_decoded_bytes
        frame_head, call_head = _FRAME_HEAD.unpack_from, _CALL_HEAD.unpack_from
        decoder.decoded = requests.inflated = 0
        last_work_us = work.us + MAX_TURN_WORK_US
        free, hits, tired = self._free(room), 0, False
        try:
            for _ in range(self._limits.max_turn_frames):
                if size - at < 9 or tired:
                    break
                word, flags, stream = frame_head(data, at)
                length = word >> 8
                if length > MIN_MAX_FRAME_SIZE:
                    raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than 16,384 bytes")
                end = at + 9 + length
                if end > size:
                    break
                if word & 0xFF == HEADERS and flags == END_HEADERS and self.block is None:
                    block = data[at + 9 : end]
                    head = known.get(block)
                    if head is None:
                        if decoder.decoded + requests.inflated > most:
                            break
                        head = decoder.decode(block)
                        if head.parent is not None:
                            calls.add_parent(stream, head.parent)
                    if (
                        head.plain
                        and free > 0
                        and size - end >= 14
                        and streams.last_id < stream <= MAX_STREAM_ID
                        and stream & 1
                    ):
                        word, flags, same, compressed, message_size = call_head(data, end)
                        length = word >> 8
                        finish = end + 9 + length
                        if (
                            word & 0xFF == DATA
                            and flags == END_STREAM
                            and same == stream
                            and finish <= size
                            and length <= MIN_MAX_FRAME_SIZE
                            and not compressed
                            and message_size == length - 5
                            and message_size <= max_message
                            and head.content_length in (None, length)
                        ):
                            streams.last_id = stream
                            requests.unacknowledged += length
                            at = finish
                            message = data[end + 14 : finish]
                            plan = recall(message)
                            if plan is not None:
                                hits += 1
                            else:
                                try:
                                    plan = planner.plan(message)
                                except InvalidRequestError as error:
                                    requests.refuse_invalid(stream, error)
                                    continue
                                finally:
                                    tired = work.us > last_work_us
                            plans.append(plan)
                            stream_ids.append(stream)
                            waiting[stream] = head
                            free -= 1
                            if head.deadline_after_s is not None and now + head.deadline_after_s < calls.deadline:
                                calls.deadline = now + head.deadline_after_s
                            continue
                    self._frame(HEADERS, END_HEADERS, stream & MAX_STREAM_ID, b"", head)
                elif decoder.decoded + requests.inflated > most:
                    break
                else:
                    self._frame(word & 0xFF, flags, stream & MAX_STREAM_ID, data[at + 9 : end])
                at = end
                free, tired = self._free(room), work.us > last_work_us
        finally:
            planner.hits += hits
        return at

    def _free(self, room: int) -> int:
        """The number of further calls of the usual form that are taken; `room` is the batcher's for this turn's."""
        streams = self._streams
        if streams.draining:
            return 0
        used = len(streams.waiting) + len(streams.open) + len(streams.sending)
        return min(streams.max_open - used, room - len(self.requests.calls.plans))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, head: Head | None = None) -> None:
        """Handle a frame; `head` is its header block, if it is decoded already."""
        if self.block is not None and (kind != CONTINUATION or stream != self.block.stream):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a header block must go on without other frames in between")
        try:
            if head is not None:
                self._on_head(stream, head, end_stream=False, depends_on_itself=False)
            elif kind in self._handlers:
                self._handlers[kind](flags, stream, payload)
            else:  # a frame of an unknown type (RFC 9113 §5.5)
                self._control.spend(honest=False)
        except H2Error as error:
            if (
                not error.stream & 1 or error.stream > self._streams.last_id
            ):  # RFC 9113 §6.4: an idle one cannot be reset
                raise
            self._control.spend_reset()
            self._sender.reset(error.stream, error.code)

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        fragment = unpadded(flags, payload)
        depends_on_itself = False
        if flags & PRIORITIZED:
            if len(fragment) < 5:
                raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            depends_on_itself = int.from_bytes(fragment[:4], "big") & MAX_STREAM_ID == stream
            fragment = fragment[5:]
        end_stream = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            self._on_head(
                stream, self._decoder.decode(fragment), end_stream=end_stream, depends_on_itself=depends_on_itself
            )
        else:
            self.block = HeaderBlock(
                stream, self.requests.calls.arrived, end_stream=end_stream, depends_on_itself=depends_on_itself
            )
            self._add_to_block(self.block, fragment)

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        block = self.block
        if block is None:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block before it")
        block.frames += 1
        self._add_to_block(block, payload)
        if flags & END_HEADERS:
            self.end_block()
            head = self._decoder.decode(bytes(block.fragments))
            self._on_head(stream, head, end_stream=block.end_stream, depends_on_itself=block.depends_on_itself)

    def _add_to_block(self, block: HeaderBlock, fragment: bytes) -> None:
        if len(block.fragments) + len(fragment) > MAX_BLOCK_BYTES or block.frames > self._limits.max_continuations:
            CloseReason.HEADER_BLOCK.count(self._on_guard)
            raise CloseReason.HEADER_BLOCK.error()
        block.fragments += fragment
        self._unfinished.charge(self._owner, None, len(fragment))
        if self.block is None:  # there was no memory for it; without it the connection cannot go on
            raise CloseReason.HEADER_MEMORY.error()

    def end_block(self) -> None:
        """Release the header block: it is whole, or will never be."""
        block, self.block = self.block, None
        if block is not None:
            self._unfinished.release(self._owner, None, len(block.fragments))

    def _on_head(self, number: int, head: Head, *, end_stream: bool, depends_on_itself: bool) -> None:
        """Handle the head or the trailers of a request."""
        streams = self._streams
        request = streams.open.get(number)
        if request is not None:
            if not end_stream or not head.is_trailers or head.malformed:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "trailers that are none", number)
            self.requests.complete(number, request)
            return
        if not number & 1:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client may open")
        if number <= streams.last_id:
            if number != streams.last_id and number not in streams and number not in streams.ignored:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "stream numbers must grow")
            streams.check_late_frame(number)
            self._control.spend()
            return
        streams.last_id = number
        if streams.draining:
            self._sender.reset(number, ErrorCode.REFUSED_STREAM)
            return
        if depends_on_itself:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself", number)
        if head.malformed or head.is_trailers:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, head.malformed or "a request without its pseudo-headers", number)
        full = len(streams) >= streams.max_open
        if full and (not head.limits or len(streams.open) >= streams.max_open):
            # Only a client that ignores SETTINGS_MAX_CONCURRENT_STREAMS comes here.
            self.requests.refuse_stream(number, head, end_stream=end_stream)
            return
        refusal = unserved(head, reflects=self._reflects)
        if refusal is not None:
            self._control.spend()
            self._sender.respond(number, refusal, cut=not end_stream)
            return
        request = Request(number, head, self.requests.calls.arrived, self._owner, shed=full)
        streams.begin(request)
        if end_stream:
            self.requests.complete(number, request)
