"""The states of a connection's streams (RFC 9113 §5.1), all of which `Streams` owns.

A stream that the client opened is in one state at a time, which is the dict that its number is in:

    state      dict       meaning
    IDLE       -          its number is above `last_id`: the client has not used it
    OPEN       open       its request is incomplete; of a reflection call, a part of its answer may be in `sending` too
    ANSWERING  -          for the time of one call: its request is over, and its answer is being written
    WAITING    waiting    the batcher has its call
    SENDING    sending    the client's windows have no room for the rest of its answer
    WATCHING   watching   it gets a message whenever the health changes; with its window shut, it is in `sending` too
    IGNORED    ignored    we ended it before the client did: frames that were on their way are no error
    CLOSED     -          every other number up to `last_id`

    method     from → to
    begin      IDLE → OPEN           the request's head has come
    complete   OPEN → ANSWERING      the request is whole, or is given up
    wait       ANSWERING → WAITING   its call is handed to the batcher; `Receiver.read` does this itself for plain calls
    settle     WAITING → ANSWERING   the batcher has decided it
    expire     WAITING → ANSWERING   its deadline has come
    hold       ANSWERING → SENDING
    watch      ANSWERING → WATCHING
    sent       SENDING → WATCHING    or → OPEN
    close      any → CLOSED          or → IGNORED, if the client has not ended it
    clear      all → CLOSED          the connection is gone

A call that is cancelled or expires while it is WAITING has *ended* (see `transport/deadlines.py`), but the batcher
still has it: `ended_calls` is the number of those.
"""

from collections.abc import Collection
from typing import Protocol

from extauth.limiter.plan import Plan
from extauth.transport.deadlines import Deadlines
from extauth.transport.h2.flow_control import Holder, Unfinished
from extauth.transport.h2.frames import DEFAULT_WINDOW, ErrorCode, H2Error
from extauth.transport.h2.request_head import Head
from extauth.transport.waiting import Calls

MIN_PROGRESS = 4096  # bytes of a message, or all that is left of it, that count as progress
KEPT_IGNORED = 64  # streams on which frames are ignored even after a long silence


class Owner(Holder, Protocol):
    """The connection, as its parts see it: what none of them can do by itself."""

    def give_up(self, number: int) -> None:
        """End the incomplete request: its call has expired."""
        ...

    def refuse_new(self) -> None:
        """Refuse new streams from now on: the client has heard that we leave."""
        ...


class Request:
    """A request that is incomplete: `received` bytes of its body have come, and `body` keeps those that are needed.

    The client may send `window` more bytes. It last made progress at `progressed`, when `progress` bytes had come.
    """

    __slots__ = (
        "answering",
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

    def __init__(self, number: int, head: Head, arrived: float, owner: Owner, *, shed: bool = False) -> None:
        self.number = number
        self.head = head
        self.owner = owner
        self.shed = shed  # it came when the maximum number of streams was open
        self.answering = False  # the head of its answer is sent, though it is incomplete: it has several messages
        self.body = bytearray()
        self.received = 0
        self.window = DEFAULT_WINDOW
        self.charged = self.wanted = 0
        self.progressed = arrived
        self.progress = 0
        self.deadline = float("inf") if head.deadline_after_s is None else arrived + head.deadline_after_s

    def expire(self, _now: float) -> None:
        """End the request: the call has expired before it was complete."""
        self.owner.give_up(self.number)


class Sending:
    """What is left of an answer: `rest` of its body, then `trailers` or, if there are none, the stream's end.

    With `more` to come, it does not end. `cut`: the client has not ended its request, so the stream is reset
    afterwards. `since` is when it was first seen here by a check.
    """

    __slots__ = ("cut", "more", "rest", "since", "trailers")

    def __init__(self, rest: bytes, trailers: bytes | None, *, cut: bool, more: bool = False) -> None:
        self.rest = rest
        self.trailers = trailers
        self.cut = cut
        self.more = more
        self.since = 0.0


class Streams:
    """The streams of one connection, of which `max_open` may be open; the dicts are for others to read."""

    def __init__(self, max_open: int, unfinished: Unfinished, deadlines: Deadlines) -> None:
        self.max_open = max_open
        self.last_id = 0
        self.draining = False  # new streams are refused
        self.open: dict[int, Request] = {}
        self.waiting: dict[int, Head] = {}
        self.deadlines: dict[int, float] = {}  # of waiting calls whose heads arrived earlier than their Calls
        self.sending: dict[int, Sending] = {}
        self.watching: dict[int, str | None] = {}  # with the service that each one names, if it exists here
        self.ignored: dict[int, None] = {}
        self.window_changes: dict[int, int] = {}  # by how much the send window differs from the initial one
        self.ended_calls = 0
        self._unfinished = unfinished
        self._deadline_timer = deadlines

    def __len__(self) -> int:
        return len(self.waiting) + len(self.open) + len(self.sending) + len(self.watching)

    def __contains__(self, number: int) -> bool:
        return number in self.waiting or number in self.open or number in self.sending or number in self.watching

    def used(self) -> bool:
        """Whether a call is open; watching the health is not a call."""
        return bool(self.waiting or self.open or self.sending)

    def begin(self, request: Request) -> None:
        """IDLE → OPEN."""
        self.open[request.number] = request
        if request.deadline < float("inf"):
            self._deadline_timer.add(request)

    def complete(self, number: int) -> Request:
        """OPEN → ANSWERING."""
        request = self.open.pop(number)
        self._release(request)
        return request

    def _release(self, request: Request) -> None:
        if request.charged or request.wanted:
            self._unfinished.release(request.owner, request, 0)
        if request.deadline < float("inf"):
            self._deadline_timer.discard(request)

    def wait(self, request: Request) -> None:
        """ANSWERING → WAITING."""
        self.waiting[request.number] = request.head
        if request.head.deadline_after_s is not None:
            self.deadlines[request.number] = request.deadline

    def settle(self, numbers: list[int]) -> Collection[int]:
        """WAITING → ANSWERING for each of them, except for those that have ended, which are returned."""
        waiting = self.waiting
        ended: Collection[int] = ()
        if self.ended_calls:
            ended = {number for number in numbers if number not in waiting}
            self.ended_calls -= len(ended)
        for number in numbers:
            if number not in ended:
                del waiting[number]
        if self.deadlines:
            for number in numbers:
                self.deadlines.pop(number, None)
        return ended

    def expire(self, calls: Calls, now: float) -> list[tuple[Plan, int]]:
        """WAITING → ANSWERING for those of the calls that have expired; sets `calls.deadline` to the next deadline."""
        calls.deadline = float("inf")
        expired = []
        for plan, number in zip(calls.plans, calls.stream_ids, strict=True):
            head = self.waiting.get(number)
            if head is None or head.deadline_after_s is None:
                continue
            deadline = self.deadlines.get(number, calls.arrived + head.deadline_after_s)
            if now < deadline:
                calls.deadline = min(calls.deadline, deadline)
                continue
            self._end_call(number)
            expired.append((plan, number))
        return expired

    def _end_call(self, number: int) -> None:
        if self.waiting.pop(number, None) is not None:
            self.deadlines.pop(number, None)
            self.ended_calls += 1

    def drop_ended(self, calls: Calls) -> None:
        """Drop the calls that have ended; the batcher is about to have the others counted."""
        pairs = list(zip(calls.plans, calls.stream_ids, strict=True))
        calls.plans.clear()
        calls.stream_ids.clear()
        for plan, number in pairs:
            if number in self.waiting:
                calls.plans.append(plan)
                calls.stream_ids.append(number)
            else:
                self.ended_calls -= 1

    def hold(self, number: int, sending: Sending) -> None:
        """ANSWERING → SENDING."""
        self.sending[number] = sending

    def watch(self, number: int, service: str | None) -> None:
        """ANSWERING → WATCHING."""
        self.watching[number] = service

    def sent(self, number: int) -> None:
        """SENDING → WATCHING, or → OPEN."""
        del self.sending[number]

    def close(self, number: int, *, ignore: bool = False) -> None:
        """Any state → CLOSED, or with `ignore` → IGNORED."""
        if (request := self.open.pop(number, None)) is not None:
            self._release(request)
        self._end_call(number)
        self.sending.pop(number, None)
        self.watching.pop(number, None)
        self.window_changes.pop(number, None)
        self.ignored.pop(number, None)
        if ignore:
            self.ignored[number] = None
            if len(self.ignored) > self.max_open:
                del self.ignored[next(iter(self.ignored))]

    def clear(self) -> None:
        """All states → CLOSED."""
        self.ended_calls += len(self.waiting)
        for request in self.open.values():
            self._release(request)
        for states in (self.open, self.waiting, self.deadlines, self.sending, self.watching, self.ignored):
            states.clear()
        self.window_changes.clear()

    def check_late_frame(self, number: int) -> None:
        """Handle a frame after its request ended: return if the client cannot know that yet, else raise H2Error."""
        sending = self.sending.get(number)
        if number in self.ignored or (sending is not None and sending.cut):
            return
        if number in self:
            raise H2Error(ErrorCode.STREAM_CLOSED, "the client has ended this stream", number)
        raise H2Error(ErrorCode.STREAM_CLOSED, "the stream is closed")

    def last_whole(self) -> int:
        """The last stream whose request was received whole, or that has ended."""
        last = self.last_id
        while last in self.open:
            last -= 2
        return max(last, 0)

    def shrink(self) -> None:
        """Give back memory when no stream is `used`: a dict that was large stays large until it is cleared."""
        for states in (self.open, self.waiting, self.deadlines, self.sending):
            states.clear()
        if not self.window_changes:
            self.window_changes.clear()

    def trim_ignored(self) -> None:
        """Forget ignored streams that ended long ago: no frame can be on its way to them any more."""
        if len(self.ignored) > KEPT_IGNORED:
            self.ignored = dict.fromkeys(list(self.ignored)[-KEPT_IGNORED:])
