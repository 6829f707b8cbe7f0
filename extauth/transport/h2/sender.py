"""The sending half of a connection: answers to frames, within the peer's windows (RFC 9113 §5.2)."""

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
from extauth.transport.h2.grpc_framing import ANSWER_HEADERS, ANSWER_TRAILERS, MAX_FAST_BYTES, answer_frames, prefixed

_EMPTY_TABLE = b"\x20"  # a dynamic table size update to 0 (RFC 7541 §6.3)


class _Blocked:
    """What is left of an answer: `rest` of its body, then `trailers` or, where there are none, the stream's end.

    With `more` of it to come, it does not end.
    """

    __slots__ = ("cut", "more", "rest", "since", "trailers")

    def __init__(self, rest: bytes, trailers: bytes | None, *, cut: bool, more: bool = False) -> None:
        self.rest = rest
        self.trailers = trailers
        self.cut = cut
        self.more = more
        self.since = 0.0


class Sender:
    """Gathers frames in `out`; whatever no window has room for stays `blocked`, by stream, oldest first.

    `due`: a window has grown, and `pump` is to be called once all frames that came are handled.
    """

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.blocked: dict[int, _Blocked] = {}
        self.window_grew = False
        self.max_frame = MIN_MAX_FRAME_SIZE
        self._window = DEFAULT_WINDOW
        self._initial = DEFAULT_WINDOW
        self._grown: dict[int, int] = {}  # stream → by how much its window differs from the initial one
        self._prefix: bytes | None = None  # of the next header block
        self._fast_path_bytes = 0  # bytes of a message that surely fits a fresh stream's window, and one frame
        self.set_initial(DEFAULT_WINDOW)

    def shrink(self) -> None:
        """Give back memory: no answer is under way."""
        self.blocked.clear()
        if not self._grown:
            self._grown.clear()

    def answer(self, stream: int, message: bytes, *, cut: bool = False) -> None:
        """Send an OK answer; `cut`: the request is not over, so reset its stream afterwards."""
        size = len(message)
        if size <= self._fast_path_bytes and size + 5 <= self._window:
            self._window -= size + 5
            self.out.append(answer_frames(stream, message))
            if self._grown:
                self._grown.pop(stream, None)
            if cut:
                self._end(stream, cut=cut)
            return
        self.out.append(frame(HEADERS, END_HEADERS, stream, self._begun(ANSWER_HEADERS)))
        self._send_body(stream, _Blocked(prefixed(message), ANSWER_TRAILERS, cut=cut))

    def begin(self, stream: int, message: bytes) -> None:
        """Send the first message of an answer that goes on."""
        self.out.append(frame(HEADERS, END_HEADERS, stream, self._begun(ANSWER_HEADERS)))
        self.go_on(stream, message)

    def go_on(self, stream: int, message: bytes) -> None:
        """Send a further message of it."""
        blocked = self.blocked.get(stream)
        if blocked is None:
            self._send_body(stream, _Blocked(prefixed(message), None, cut=False, more=True))
        else:
            blocked.rest += prefixed(message)

    def finish(self, stream: int, trailers: bytes) -> None:
        """End it, whatever of it is still blocked."""
        self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, self._begun(trailers)))
        self.forget(stream)

    def respond(self, stream: int, block: bytes, body: bytes = b"", *, cut: bool) -> None:
        """Send a header block and perhaps a body; `cut`: the request is not over, so reset its stream afterwards."""
        block = self._begun(block)
        if body:
            self.out.append(frame(HEADERS, END_HEADERS, stream, block))
            self._send_body(stream, _Blocked(body, None, cut=cut))
        else:
            self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
            self._end(stream, cut=cut)

    def forget(self, stream: int) -> None:
        """The stream is closed."""
        self.blocked.pop(stream, None)
        self._grown.pop(stream, None)

    def window_update(self, stream: int, increment: int) -> None:
        """The peer grants `increment` bytes more; stream 0 is the connection. Raises H2Error."""
        if stream == 0:
            self._window += increment
            if self._window > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")
            self.window_grew = True
            return
        grown = self._grown.get(stream, 0) + increment
        if self._initial + grown > MAX_WINDOW:
            raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows", stream)
        self._grown[stream] = grown
        if stream in self.blocked:
            self._pump(stream, self.blocked[stream])

    def set_initial(self, *windows: int) -> None:
        """The peer sets the window of all streams, one after the other, those open included. Raises H2Error."""
        most = max(self._grown.values(), default=0)
        for window in windows:
            if window > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is above 2^31-1")
            if window + most > MAX_WINDOW:
                raise H2Error(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a stream's window overflow")
        window = self._initial = windows[-1]
        self._choose_path()
        self.window_grew = True

    def shrink_table(self) -> None:
        """The peer has less room for a dynamic table than by default: the next header block must agree to a size.

        RFC 7541 §4.2. It is 0, which fits whatever the peer sets later too, as no block of ours uses the table.
        """
        if self._prefix is None:
            self._prefix = _EMPTY_TABLE
            self._choose_path()

    def _begun(self, block: bytes) -> bytes:
        """The header block as it is to be sent."""
        if not self._prefix:
            return block
        block, self._prefix = self._prefix + block, b""
        self._choose_path()
        return block

    def _choose_path(self) -> None:
        self._fast_path_bytes = -1 if self._prefix else min(MAX_FAST_BYTES, self._initial - 5)

    def _send_body(self, stream: int, body: _Blocked) -> None:
        self.blocked[stream] = body
        self._pump(stream, body)

    def pump(self) -> None:
        """Send what the windows have room for by now."""
        self.window_grew = False
        for stream, blocked in list(self.blocked.items()):
            if self._window <= 0:
                break
            self._pump(stream, blocked)

    def _pump(self, stream: int, blocked: _Blocked) -> None:
        while True:
            grown = self._grown.get(stream, 0)
            room = min(self._window, self._initial + grown, self.max_frame)
            if room <= 0:
                return
            chunk, blocked.rest = blocked.rest[:room], blocked.rest[room:]
            self._window -= len(chunk)
            self._grown[stream] = grown - len(chunk)
            last = not blocked.rest
            ends = last and blocked.trailers is None and not blocked.more
            self.out.append(frame(DATA, END_STREAM if ends else 0, stream, chunk))
            if last:
                break
        if blocked.more:
            self.blocked.pop(stream)
            return
        if blocked.trailers is not None:
            self.out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, self._begun(blocked.trailers)))
        self._end(stream, cut=blocked.cut)

    def _end(self, stream: int, *, cut: bool) -> None:
        self.forget(stream)
        if cut:  # RFC 9113 §8.1: the answer is whole, the rest of the request is not wanted
            self.out.append(rst_stream(stream, ErrorCode.NO_ERROR))
