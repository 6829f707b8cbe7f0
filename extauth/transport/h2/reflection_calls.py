"""The reflection calls of one connection, the only ones whose requests are several messages.

Such a stream is OPEN until the client ends it: each message in it is answered at once, and a part of one is kept for
the next frame. A stream without a request for the stall timeout ends.
"""

from extauth.errors import InvalidRequestError, RequestTooLargeError
from extauth.transport.h2 import frames
from extauth.transport.h2.control_frames import Control
from extauth.transport.h2.grpc_framing import GrpcError, Status, refusal_block, trailer_block, unframe
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.server_state import ServerState
from extauth.transport.h2.streams import Request, Streams
from extauth.transport.reflection import MAX_HELD_BYTES, MAX_REQUEST_BYTES, TOO_LARGE, TOO_MANY, UNREAD, respond


class ReflectionCalls:
    """Answers the messages of reflection calls, within the limits of `transport/reflection.py`."""

    def __init__(self, state: ServerState, streams: Streams, sender: Sender, control: Control) -> None:
        self._reflection = state.reflection
        self._streams = streams
        self._sender = sender
        self._control = control

    def on_data(self, request: Request, size: int, content: bytes, *, end_stream: bool) -> None:
        """Answer the messages that a frame of `size` bytes, with this content, completes; it may end the call."""
        request.body += content
        if size and not end_stream:
            request.window += size
            self._sender.send(frames.window_update(request.number, size))
        try:
            while (message := _next_message(request)) is not None:
                self._answer(request, message)
        except GrpcError as error:
            self._fail(request, error.status, str(error), cut=not end_stream)

    def on_end(self, request: Request) -> None:
        """End the call, whose stream is ANSWERING: the client has sent all."""
        number = request.number
        if request.body:
            text = "the request ends inside a message"
            self._sender.respond(number, _end_block(request, Status.INTERNAL, text), cut=False)
        elif request.answering:
            self._sender.finish(number)
        else:
            self._sender.respond(number, refusal_block(Status.OK, ""), cut=False)

    def give_up(self, request: Request, why: str) -> None:
        """End a call that the client has not ended; it may be made again."""
        self._fail(request, Status.UNAVAILABLE, why, cut=True)

    def _answer(self, request: Request, message: bytes) -> None:
        now = self._control.now
        held = self._streams.sending.get(request.number)
        if held is not None and len(held.rest) > MAX_HELD_BYTES:
            raise GrpcError(Status.RESOURCE_EXHAUSTED, UNREAD)
        if self._reflection is None or not self._reflection.admits(now):
            raise GrpcError(Status.RESOURCE_EXHAUSTED, TOO_MANY)
        try:
            answer = respond(message)
        except InvalidRequestError as error:
            raise GrpcError(Status.INVALID_ARGUMENT, str(error)) from error
        request.progressed = self._control.health_answered = now
        if request.answering:
            self._sender.go_on(request.number, answer)
        else:
            request.answering = True
            self._sender.begin(request.number, answer)

    def _fail(self, request: Request, status: Status, text: str, *, cut: bool) -> None:
        self._streams.complete(request.number)
        self._sender.respond(request.number, _end_block(request, status, text), cut=cut)


def _end_block(request: Request, status: Status, text: str) -> bytes:
    return trailer_block(status, text) if request.answering else refusal_block(status, text)


def _next_message(request: Request) -> bytes | None:
    """Take the next whole message out of a request's body; None if it is incomplete. Raises GrpcError."""
    body = request.body
    if len(body) < 5:
        return None
    length = int.from_bytes(body[1:5], "big")
    if length > MAX_REQUEST_BYTES:
        raise GrpcError(Status.RESOURCE_EXHAUSTED, TOO_LARGE)
    if len(body) < length + 5:
        return None
    framed = bytes(body[: length + 5])
    del body[: length + 5]
    try:
        return unframe(framed, request.head.encoding, MAX_REQUEST_BYTES)
    except RequestTooLargeError as error:
        raise GrpcError(Status.RESOURCE_EXHAUSTED, TOO_LARGE) from error
