"""Where each stream of a connection stands (RFC 9113 §5.1), and what is owed of the receive window (§5.2).

A stream that the client opened is in one place at a time: `open` while its request is incomplete, `waiting` while its
answer is not there, `sender.blocked` while its answer is not sent, `refused` where we ended it and the client may not
know yet. Elsewhere up to `last` it is closed, and beyond it idle.
"""

from extauth.transport.frames import ErrorCode, H2Error, rst_stream
from extauth.transport.head import Head
from extauth.transport.sender import Sender


class Request:
    """A request that is incomplete: `body` so far, of which `held` bytes of the window are not given back."""

    __slots__ = ("arrived", "body", "head", "held", "received")

    def __init__(self, head: Head, arrived: float) -> None:
        self.head = head
        self.arrived = arrived
        self.body = bytearray()
        self.held = 0
        self.received = 0


class Streams:
    """The streams of one connection; `most` of them may be open.

    `cancelled` counts the calls in the batcher's hands whose streams are gone. `owed` bytes of the receive window are
    to be given back, `held` ones are in incomplete requests.
    """

    def __init__(self, sender: Sender, most: int) -> None:
        self.most = most
        self.last = 0
        self.open: dict[int, Request] = {}
        self.waiting: dict[int, Head] = {}
        self.deadlines: dict[int, float] = {}  # of those waiting, where it is not their Calls' arrival that counts
        self.refused: dict[int, None] = {}
        self.cancelled = 0
        self.owed = 0
        self.held = 0
        self._sender = sender

    def __len__(self) -> int:
        return len(self.waiting) + len(self.open) + len(self._sender.blocked)

    def __contains__(self, number: int) -> bool:
        return number in self.waiting or number in self.open or number in self._sender.blocked

    def finish(self, number: int, *, whole: bool) -> None:
        """No more of the request is wanted; where it is not `whole`, what still comes is ignored."""
        request = self.open.pop(number)
        self.held -= request.held
        self.owed += request.held
        if not whole:
            self._remember(number)

    def answered(self, number: int) -> bool:
        """Whether the stream still waited for an answer; it does no more."""
        self.deadlines.pop(number, None)
        return self.waiting.pop(number, None) is not None

    def forget(self, number: int) -> None:
        """The stream is closed, whatever it was."""
        if number in self.open:
            self.finish(number, whole=True)
        if self.answered(number):
            self.cancelled += 1
        self._sender.forget(number)
        self.refused.pop(number, None)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End the stream with RST_STREAM."""
        self.forget(number)
        self._sender.out.append(rst_stream(number, code))
        self._remember(number)

    def clear(self) -> None:
        """All streams are closed."""
        self.cancelled += len(self.waiting)
        self.waiting.clear()
        self.deadlines.clear()
        self.open.clear()
        self._sender.blocked.clear()

    def late(self, number: int) -> None:
        """Judge a frame on a stream whose request is over; returns where it is to be ignored, else raises H2Error."""
        if number in self.refused:
            return
        if number in self:
            raise H2Error(ErrorCode.STREAM_CLOSED, "the client has ended this stream", number)
        raise H2Error(ErrorCode.STREAM_CLOSED, "the stream is closed")

    def _remember(self, number: int) -> None:
        self.refused[number] = None
        if len(self.refused) > self.most:
            del self.refused[next(iter(self.refused))]
