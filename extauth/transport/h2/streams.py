"""Where each stream of a connection stands (RFC 9113 §5.1), and what is owed of the receive window (§5.2).

A stream that the client opened is in one place at a time: `open` while its request is incomplete, `waiting` while its
answer is not there, `sender.blocked` while its answer is not sent, `watching` while it hears of the health, `refused`
where we ended it and the client may not know yet. Elsewhere up to `last` it is closed, and beyond it idle.
"""

from typing import Protocol

from extauth.transport.deadlines import Deadlines
from extauth.transport.h2.flow_control import Holder, Unfinished
from extauth.transport.h2.frames import DEFAULT_WINDOW, ErrorCode, H2Error, rst_stream
from extauth.transport.h2.request_head import Head
from extauth.transport.h2.sender import Sender

MIN_PROGRESS = 4096  # bytes of a message, or all that is left of it, that count as progress


class Receiving(Holder, Protocol):
    """Whose requests these are."""

    def give_up(self, number: int) -> None:
        """End the incomplete request: its time is over."""
        ...


class Request:
    """A request that is incomplete: `received` bytes have come, of which `body` keeps what is wanted.

    The client may send `window` bytes more. The last progress was seen at `progressed`, with `progress` bytes there.
    """

    __slots__ = (
        "body",
        "charged",
        "deadline",
        "head",
        "number",
        "owner",
        "progress",
        "progressed",
        "received",
        "shed",
        "wanted",
        "window",
    )

    def __init__(self, number: int, head: Head, arrived: float, owner: Receiving, *, shed: bool = False) -> None:
        self.number = number
        self.head = head
        self.owner = owner
        self.shed = shed  # it came when as many as may be were open
        self.body = bytearray()
        self.received = 0
        self.window = DEFAULT_WINDOW
        self.charged = self.wanted = 0
        self.progressed = arrived
        self.progress = 0
        self.deadline = float("inf") if head.patience_s is None else arrived + head.patience_s

    def expire(self, _now: float) -> None:
        """The call's own time is over."""
        self.owner.give_up(self.number)


KEPT_REFUSED = 64  # streams on which frames are ignored even after a long silence


class Streams:
    """The streams of one connection; `most` of them may be open.

    `cancelled` counts the calls in the batcher's hands whose streams are gone. `owed` bytes of the connection's receive
    window are to be given back.
    """

    def __init__(self, sender: Sender, most: int, unfinished: Unfinished, deadlines: Deadlines) -> None:
        self.max_open = most
        self.last_id = 0
        self.open: dict[int, Request] = {}
        self.waiting: dict[int, Head] = {}
        self.deadlines: dict[int, float] = {}  # of those waiting, where it is not their Calls' arrival that counts
        self.watching: dict[int, bool] = {}  # whether the service that each one names is here
        self.refused: dict[int, None] = {}
        self.cancelled = 0
        self.unacknowledged = 0
        self._sender = sender
        self._unfinished = unfinished
        self._call_deadlines = deadlines

    def __len__(self) -> int:
        return len(self.waiting) + len(self.open) + len(self._sender.blocked) + len(self.watching)

    def __contains__(self, number: int) -> bool:
        return (
            number in self.waiting or number in self.open or number in self._sender.blocked or number in self.watching
        )

    def used(self) -> bool:
        """Whether a call is open; to watch the health is not to call."""
        return bool(self.waiting or self.open or self._sender.blocked)

    def shrink(self) -> None:
        """Give back memory, where none is `used`: a dict that was large stays so until it is cleared."""
        self.waiting.clear()
        self.open.clear()
        self.deadlines.clear()
        self._sender.shrink()

    def trim_refused(self) -> None:
        """Forget streams that ended so long ago that nothing can still come on them."""
        if len(self.refused) > KEPT_REFUSED:
            self.refused = dict.fromkeys(list(self.refused)[-KEPT_REFUSED:])

    def begin(self, request: Request) -> None:
        """A request has begun, and is not whole yet."""
        self.open[request.number] = request
        if request.deadline < float("inf"):
            self._call_deadlines.add(request)

    def finish(self, number: int, *, whole: bool) -> Request:
        """No more of the request is wanted; where it is not `whole`, what still comes is ignored."""
        request = self.open.pop(number)
        self._let_go(request)
        if not whole:
            self.ignore(number)
        return request

    def _let_go(self, request: Request) -> None:
        if request.charged or request.wanted:
            self._unfinished.release(request.owner, request, 0)
        if request.deadline < float("inf"):
            self._call_deadlines.discard(request)

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
        self.watching.pop(number, None)
        self.refused.pop(number, None)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End the stream with RST_STREAM."""
        self.forget(number)
        self._sender.out.append(rst_stream(number, code))
        self.ignore(number)

    def last_whole(self) -> int:
        """The last stream whose request was received whole, or that has ended."""
        last = self.last_id
        while last in self.open:
            last -= 2
        return max(last, 0)

    def refuse_unfinished(self) -> None:
        """Let the client know that incomplete requests were not processed (RFC 9113 §8.7)."""
        for number in list(self.open):
            self.reset(number, ErrorCode.REFUSED_STREAM)

    def clear(self) -> None:
        """All streams are closed."""
        self.cancelled += len(self.waiting)
        self.waiting.clear()
        self.deadlines.clear()
        self.watching.clear()
        for request in self.open.values():
            self._let_go(request)
        self.open.clear()
        self._sender.blocked.clear()

    def check_late_frame(self, number: int) -> None:
        """Judge a frame on a stream whose request is over; returns where it is to be ignored, else raises H2Error."""
        if number in self.refused:
            return
        if number in self:
            raise H2Error(ErrorCode.STREAM_CLOSED, "the client has ended this stream", number)
        raise H2Error(ErrorCode.STREAM_CLOSED, "the stream is closed")

    def ignore(self, number: int) -> None:
        """Ignore what still comes on a stream that we ended."""
        self.refused[number] = None
        if len(self.refused) > self.max_open:
            del self.refused[next(iter(self.refused))]
