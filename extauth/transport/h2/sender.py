"""The sending half of a connection: answers to frames, within the peer's windows (RFC 9113 §5.2)."""

from collections.abc import Iterable

from extauth.limiter.counters import Uncounted
from extauth.limiter.templates import Answer
from extauth.transport.h2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    MIN_MAX_FRAME_SIZE,
    ErrorCode,
    H2Error,
    frame,
    rst_stream,
)
from extauth.transport.h2.grpc_framing import (
    ANSWER_HEADERS,
    ANSWER_TRAILERS,
    MAX_FAST_BYTES,
    Status,
    answer_frames,
    prefixed,
    refusal_block,
)
from extauth.transport.h2.streams import Sending, Streams

_EMPTY_TABLE = b"\x20"  # a dynamic table size update to 0 (RFC 7541 §6.3)


class Sender:
    """Collects the frames to send in `out`, and ends the streams that are answered.

    Where the client's windows have no room, the rest of an answer is held (`Streams.sending`). If `window_grew`, `pump`
    must be called once all frames that came are handled.
    """

    def __init__(self, streams: Streams) -> None:
        self.window_grew = False
        self.max_frame = MIN_MAX_FRAME_SIZE
        self._streams = streams
        self.out: list[bytes] = []
        self._window = DEFAULT_WINDOW
        self._initial = DEFAULT_WINDOW
        self._prefix: bytes | None = None  # of the next header block
        self._fast_path_bytes = 0  # bytes of a message that surely fits a fresh stream's window, and one frame
        self.set_initial(DEFAULT_WINDOW)

    def send(self, control_frame: bytes) -> None:
        """Send a frame that belongs to no answer."""
        self.out.append(control_frame)

    def answer(self, stream: int, message: bytes, *, cut: bool = False) -> None:
        """Send an OK answer; `cut`: the request is not complete, so reset its stream afterwards."""
        size = len(message)
        if size <= self._fast_path_bytes and size + 5 <= self._window:
            self._window -= size + 5
            self.out.append(answer_frames(stream, message))
            if cut:
                self._end(stream, cut=cut)
            elif self._streams.window_changes:
                self._streams.window_changes.pop(stream, None)
            return
        self.out.append(frame(HEADERS, END_HEADERS, stream, self._with_prefix(ANSWER_HEADERS)))
        self._send_body(stream, Sending(prefixed(message), ANSWER_TRAILERS, cut=cut))

    def fail(self, stream: int, how: Uncounted) -> None:
        """Fail a call; only one about which the store was not asked may be made again: it cannot be counted twice."""
        status = Status.UNAVAILABLE if how is Uncounted.UNSENT else Status.DEADLINE_EXCEEDED
        self.respond(stream, refusal_block(status, "the counters' store does not answer"), cut=False)

    def answer_all(self, answers: Iterable[tuple[int, Answer]]) -> None:
        """Answer each of these streams by its message, as `answer` does, or `fail` its call."""
        most, window, changes = self._fast_path_bytes, self._window, self._streams.window_changes
        send = self.out.append
        try:
            for stream, message in answers:
                if message.__class__ is bytes and not changes:
                    size = len(message)
                    if size <= most and size + 5 <= window:
                        window -= size + 5
                        send(answer_frames(stream, message))
                        continue
                self._window = window
                if isinstance(message, Uncounted):
                    self.fail(stream, message)
                else:
                    self.answer(stream, message)
                most, window = self._fast_path_bytes, self._window
        finally:
            self._window = window

    def begin(self, stream: int, message: bytes) -> None:
        """Send the first message of an answer that goes on."""
        self.out.append(frame(HEADERS, END_HEADERS, stream, self._with_prefix(ANSWER_HEADERS)))
        self.go_on(stream, message)

    def go_on(self, stream: int, message: bytes) -> None:
        """Send a further message of an answer that goes on."""
        sending = self._streams.sending.get(stream)
        if sending is None:
            self._send_body(stream, Sending(prefixed(message), None, cut=False, more=True))
        else:
            sending.rest += prefixed(message)

    def finish(self, stream: int) -> None:
        """End an answer that went on with the status OK, once the client's windows have had room for all of it."""
        sending = self._streams.sending.get(stream)
        if sending is None:
            self.respond(stream, ANSWER_TRAILERS, cut=False)
        else:
            sending.trailers, sending.more = ANSWER_TRAILERS, False

    def respond(self, stream: int, block: bytes, body: bytes = b"", *, cut: bool) -> None:
        """Send a header block and perhaps a body, or the trailers that end an answer that went on.

        What was held of the answer is dropped. `cut`: the request is not complete, so reset its stream afterwards.
        """
        block = self._with_prefix(block)
        if body:
            self.out.append(frame(HEADERS, END_HEADERS, stream, block))
            self._send_body(stream, Sending(body, None, cut=cut))
        else:
            self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
            self._end(stream, cut=cut)

    def reset(self, stream: int, code: ErrorCode) -> None:
        """End the stream with RST_STREAM."""
        self.out.append(rst_stream(stream, code))
        self._streams.close(stream, ignore=True)

    def window_update(self, stream: int, increment: int) -> None:
        """Enlarge a send window by `increment` bytes; stream 0 is the connection. Raises H2Error."""
        if stream == 0:
            self._window += increment
            if self._window > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self.window_grew = True
            return
        changes, sending = self._streams.window_changes, self._streams.sending.get(stream)
        change = changes.get(stream, 0) + increment
        if self._initial + change > MAX_WINDOW:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows", stream)
        changes[stream] = change
        if sending is not None:
            self._pump(stream, sending)

    def set_initial(self, *windows: int) -> None:
        """Apply the windows of one SETTINGS frame, in order, to all streams, open ones included. Raises H2Error."""
        largest = max(self._streams.window_changes.values(), default=0)
        for window in windows:
            if window > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is above 2^31-1")
            if window + largest > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a stream's window overflow")
        self._initial = windows[-1]
        self._choose_path()
        self.window_grew = True

    def shrink_table(self) -> None:
        """The peer has less room for a dynamic table than by default: the next header block must declare a size.

        RFC 7541 §4.2. We declare 0, which fits any later limit of the peer's, since no block of ours uses the table.
        """
        if self._prefix is None:
            self._prefix = _EMPTY_TABLE
            self._choose_path()

    def _with_prefix(self, block: bytes) -> bytes:
        if not self._prefix:
            return block
        block, self._prefix = self._prefix + block, b""
        self._choose_path()
        return block

    def _choose_path(self) -> None:
        self._fast_path_bytes = -1 if self._prefix else min(MAX_FAST_BYTES, self._initial - 5)

    def _send_body(self, stream: int, body: Sending) -> None:
        self._streams.hold(stream, body)
        self._pump(stream, body)

    def pump(self) -> None:
        """Send as much of the held answers as the windows have room for, the oldest first."""
        self.window_grew = False
        for stream, sending in list(self._streams.sending.items()):
            if self._window <= 0:
                break
            self._pump(stream, sending)

    def _pump(self, stream: int, sending: Sending) -> None:
        changes = self._streams.window_changes
        while True:
            change = changes.get(stream, 0)
            room = min(self._window, self._initial + change, self.max_frame)
            if room <= 0:
                return
            chunk, sending.rest = sending.rest[:room], sending.rest[room:]
            self._window -= len(chunk)
            changes[stream] = change - len(chunk)
            last = not sending.rest
            ends = last and sending.trailers is None and not sending.more
            self.out.append(frame(DATA, END_STREAM if ends else 0, stream, chunk))
            if last:
                break
        if sending.more:
            self._streams.sent(stream)
            return
        if sending.trailers is not None:
            self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, self._with_prefix(sending.trailers)))
        self._end(stream, cut=sending.cut)

    def _end(self, stream: int, *, cut: bool) -> None:
        self._streams.close(stream, ignore=cut)
        if cut:  # RFC 9113 §8.1: the answer is whole, the rest of the request is not wanted
            self.out.append(rst_stream(stream, ErrorCode.NO_ERROR))
