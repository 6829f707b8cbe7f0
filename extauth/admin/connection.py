"""One client's connection to the admin server: HTTP/1.1 by h11, over the event loop's own socket calls.

It reads only what it handles next, and produces an answer only as fast as the client reads it, so nothing accumulates.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import h11

from extauth.admin.hosts import AllowedHosts
from extauth.admin.lane import Lane
from extauth.admin.messages import begin, header, in_blocks, path_of, read_request, response
from extauth.admin.routes import BODY_BYTES, Answer, Audience, MadeLater, Request, Route, Stream, refusal

PLACES: Final = 64
KEPT_PLACES: Final = 16
STALL_S: Final = 10.0
IDLE_S: Final = 75.0
HEAD_BYTES: Final = 8192
HEADERS: Final = 100
DISCARDED_BYTES: Final = 65_536

# h11 bounds the bytes of a head alone, and takes 3 ms for one of 2,700 headers.
_TOO_MANY_HEADERS: Final = re.compile(rb"(?:\r?[^\r\n][^\n]*\n){%d}" % (HEADERS + 2))
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
_HINTS: Final = {
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: f"A head may have {HEAD_BYTES} bytes and {HEADERS} headers.\n",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"A body may have {BODY_BYTES} bytes, or more where the path takes one.\n",
}
_FOREIGN_NAME: Final = (
    "This page is not served under that host name, because a hostile site could make its own name lead here.\n"
    "Use an IP address or localhost, or add the name to EXTAUTH_ADMIN_HOSTS.\n"
)
_CROWDED: Final = "Too many answers are being sent: the connections that are left are for probes and scrapes.\n"


_Made = TypeVar("_Made")


class State(IntEnum):
    """The state of a connection. When all places are taken and none is silent, the lowest state is closed first.

    CLOSING: half-closed. PAGE: a page for people is being sent. STREAM: an answer that may never end is. CALL: a call
    is being decided. WAITING: a request is expected or arriving. PROBE: a probe or a scrape is being answered.
    """

    CLOSING = 0
    PAGE = 1
    STREAM = 2
    CALL = 3
    WAITING = 4
    PROBE = 5


_ANSWERING: Final = {State.PAGE, State.STREAM, State.CALL, State.PROBE}
_STATES: Final = {Audience.PEOPLE: State.PAGE, Audience.CALLERS: State.CALL, Audience.MACHINES: State.PROBE}


@dataclass(kw_only=True)
class Context:
    """Shared by all connections: what they serve, and which are `open`: each until its socket is closed."""

    routes: Mapping[str, Route]
    hosts: AllowedHosts
    clock: Callable[[], float]
    lanes: Mapping[State, Lane]
    open: "set[Connection]" = field(default_factory=set)
    stopping: bool = False

    def crowded(self) -> bool:
        """Whether the places that are left are for probes and scrapes."""
        return sum(connection.state in _ANSWERING for connection in self.open) >= PLACES - KEPT_PLACES


class Connection:
    """Answers a client's requests one after the other."""

    def __init__(self, sock: socket.socket, context: Context) -> None:
        self.state = State.WAITING
        self.since = context.clock()
        self.deadline = self.since + STALL_S
        self.ended = False
        self._sock = sock
        self._context = context
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES - 1)
        self._idle = False  # kept alive, and no byte of another request has come
        self._receiving = False
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._serve())
        self.task.add_done_callback(self._close)  # a task that is cancelled before it began runs no `finally`

    def end(self) -> None:
        """Close the connection soon, whatever it is doing."""
        self.ended = True
        self.task.cancel()

    def is_silent(self) -> bool:
        """Whether it waits for its client and has no unread bytes: such bytes could be a probe."""
        if self.state is State.CLOSING:
            return True
        if self.state is not State.WAITING or not self._receiving:
            return False
        try:
            return self._sock.recv(1, socket.MSG_PEEK) == b""
        except OSError:  # there are no bytes, or the client is gone
            return True

    def _close(self, _task: "asyncio.Task[None]") -> None:
        self._sock.close()
        del self.task  # it is in a reference cycle with its traceback if cancelled, and cycles are collected rarely
        self._context.open.discard(self)

    def _enter(self, state: State) -> None:
        self.state = state
        self.since = self._context.clock()

    async def _serve(self) -> None:
        with suppress(OSError):  # the client is gone
            while await self._exchange() and not self._context.stopping:
                self._h11.start_next_cycle()
                self._enter(State.WAITING)
                self._idle = not self._h11.trailing_data[0]
                self.deadline = self.since + (IDLE_S if self._idle else STALL_S)
            await self._hang_up()

    async def _hang_up(self) -> None:
        """Half-close and read on for a while: a close with unread bytes would lose the last answer."""
        self._enter(State.CLOSING)
        self.deadline = self.since + STALL_S
        self._sock.shutdown(socket.SHUT_WR)
        left = DISCARDED_BYTES
        while left > 0 and (data := await self._loop.sock_recv(self._sock, HEAD_BYTES)):
            left -= len(data)

    async def _exchange(self) -> bool:
        """Read one request and answer it; returns whether the connection can take another."""
        received = await self._read_request()
        if received is None:
            return False
        if isinstance(received, HTTPStatus):
            self._enter(State.PAGE)
            await self._answer(lambda: refusal(received, _HINTS.get(received, "")), close=True)
            return False
        request, host = received
        found = self._find(request, host)
        if isinstance(found, Answer):
            self._enter(State.PAGE)
            await self._answer(lambda: found, head_only=request.method == "HEAD")
        else:
            self._enter(State.STREAM if found.lasting else _STATES[found.audience])
            await self._answer(lambda: found.handler(request), head_only=request.method == "HEAD")
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    def _find(self, request: Request, host: str) -> Route | Answer:
        """The route for the request, or the answer that refuses it."""
        route = self._context.routes.get(request.path)
        if route is None:
            return refusal(HTTPStatus.NOT_FOUND)
        if request.method not in route.methods:
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED, headers=[("Allow", ", ".join(route.methods))])
        if route.audience is Audience.PEOPLE and not self._context.hosts.allow(host):
            return refusal(HTTPStatus.MISDIRECTED_REQUEST, _FOREIGN_NAME)
        if route.audience is Audience.PEOPLE and self._context.crowded():
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, _CROWDED, headers=[("Retry-After", "1")])
        return route

    # Reading

    async def _read_request(self) -> tuple[Request, str] | HTTPStatus | None:
        """A complete request and its host, or the status that refuses it; None if the client closed the connection."""
        head: h11.Request | None = None
        body, most = b"", BODY_BYTES
        while True:
            event = await self._next_event()
            if isinstance(event, HTTPStatus):
                return event
            if isinstance(event, h11.Request):
                head = event
                if not head.http_version.startswith(b"1."):
                    return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
                route = self._context.routes.get(path_of(head))
                most = BODY_BYTES if route is None else route.body_bytes
                if int(header(head, b"content-length") or 0) > most:
                    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                if self._h11.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[]))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > most:
                    return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            elif head is not None and isinstance(event, h11.EndOfMessage):
                return read_request(head, body)
            else:
                return None

    async def _next_event(self) -> h11.Event | HTTPStatus:
        """The next event, or the status that refuses the request."""
        while True:
            event = await self._context.lanes[State.WAITING].run(self._parse)
            if isinstance(event, h11.Event | HTTPStatus):
                return event
            self._receiving = True
            data = await self._loop.sock_recv(self._sock, HEAD_BYTES - len(self._h11.trailing_data[0]))
            self._receiving = False
            if self._idle:
                self._idle = False
                self.deadline = self._context.clock() + STALL_S
            self._h11.receive_data(data)

    def _parse(self) -> h11.Event | HTTPStatus | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self._h11.their_state is h11.IDLE and _TOO_MANY_HEADERS.match(self._h11.trailing_data[0]):
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            error.with_traceback(None)  # else it would be in a reference cycle, and clients could cause many
            return HTTPStatus(error.error_status_hint)

    # Answering

    async def _answer(
        self, make: Callable[[], Answer | MadeLater], *, head_only: bool = False, close: bool = False
    ) -> None:
        """Send the answer that `make` returns, piece by piece as the client reads."""
        self.deadline = float("inf")
        lane, clock = self._context.lanes[self.state], self._context.clock

        def begun(made: Answer | MadeLater) -> tuple[Answer, Iterator[bytes], bytes | None] | MadeLater:
            return begin(made, clock, head_only=head_only) if isinstance(made, Answer) else made

        try:
            ready = await lane.run(lambda: begun(make()))
            if not isinstance(ready, tuple):
                late = await ready()
                ready = await lane.run(lambda: begin(late, clock, head_only=head_only))
            answer, blocks, block = ready
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self._report(error)
            answer, blocks, block = begin(refusal(HTTPStatus.INTERNAL_SERVER_ERROR), clock, head_only=head_only)
        head = response(answer, close=close or self._context.stopping)
        unsent = await self._send_blocks([head], blocks, block)
        if isinstance(answer.body, Stream):
            unsent = await self._send_stream(unsent, answer.body, head_only=head_only)
        await self._send(*unsent, h11.EndOfMessage())

    async def _send_blocks(
        self, unsent: list[h11.Event], blocks: Iterator[bytes], block: bytes | None
    ) -> list[h11.Event]:
        """Send what is `unsent`, and the blocks, if there are any; returns what is unsent still."""
        lane = self._context.lanes[self.state]
        while block is not None:
            await self._send(*unsent, h11.Data(data=block))
            unsent = []
            block = await self._made(lane.run(partial(next, blocks, None)))
        return unsent

    async def _send_stream(self, unsent: list[h11.Event], stream: Stream, *, head_only: bool) -> list[h11.Event]:
        """Send the parts of a stream, one after the other."""
        lane = self._context.lanes[self.state]
        try:
            while not head_only and (pieces := await self._made(stream.next())) is not None:
                blocks = in_blocks(pieces, self._context.clock)
                block = await self._made(lane.run(partial(next, blocks, None)))
                unsent = await self._send_blocks(unsent, blocks, block)
        finally:
            stream.close()
        return unsent

    async def _made(self, making: Awaitable[_Made]) -> _Made:
        """A further part of an answer. If it cannot be made, the connection is reset."""
        try:
            return await making
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer must not look complete
            self._report(error)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise ConnectionAbortedError from None

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._h11.send(event) or b"" for event in events)
        if data:
            deadline = self.deadline
            self.deadline = self._context.clock() + STALL_S
            await self._loop.sock_sendall(self._sock, data)
            self.deadline = deadline

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "an answer of the admin server failed", "exception": error})
