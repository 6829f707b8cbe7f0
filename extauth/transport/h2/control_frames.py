"""The frames that carry no request (RFC 9113 §6.3 to §6.9), and how many of them a client may send."""

from collections.abc import Callable
from typing import Final

from extauth.transport.engine import ConnectionLimits, OnGuard, TokenBucket
from extauth.transport.h2 import frames
from extauth.transport.h2.closing import CloseReason
from extauth.transport.h2.frames import ACK, MAX_STREAM_ID, MAX_WINDOW, MIN_MAX_FRAME_SIZE, ErrorCode, H2Error
from extauth.transport.h2.hpack import TABLE_SIZE
from extauth.transport.h2.sender import Sender
from extauth.transport.h2.streams import Owner, Streams

Handler = Callable[[int, int, bytes], None]
"""(flags, stream, payload) → handled; raises H2Error."""


ANSWERING_S: Final = 1.0  # for this long after an answer, calls count as being answered
GOAWAY_PING: Final = b"goaway\x00\x00"


class Control:
    """Handles these frames, which came at `now`; has new streams refused when the PING that follows GOAWAY is back."""

    def __init__(
        self,
        limits: ConnectionLimits,
        on_guard: OnGuard,
        streams: Streams,
        sender: Sender,
        owner: Owner,
    ) -> None:
        self.now = 0.0
        self.answered = -ANSWERING_S  # when the last answer to a call was written
        self.health_answered = -ANSWERING_S  # when the last answer to a health check, or by reflection, was
        self._on_guard = on_guard
        self._streams = streams
        self._sender = sender
        self._owner = owner
        self._frames = TokenBucket(limits.max_control_frames_per_s)
        self._resets = TokenBucket(limits.max_resets_per_s)
        self.handlers: dict[int, Handler] = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
        }

    def close(self) -> None:
        """No more frames come: drop all references back to the connection."""
        self.handlers.clear()
        vars(self).pop("_owner", None)

    def spend(self, *, honest: bool = True) -> None:
        """Spend a token on a frame that requests nothing; `honest`: clients send many of this kind with their calls."""
        if not self._frames.spend(self.now) and not (honest and self._answering()):
            CloseReason.CONTROL_FRAMES.count(self._on_guard)
            raise CloseReason.CONTROL_FRAMES.error()

    def spend_reset(self) -> None:
        """Spend a token on a stream that the client made us reset (CVE-2025-8671); its own resets cost nothing."""
        if not self._resets.spend(self.now) and not self._answering():
            CloseReason.RESETS.count(self._on_guard)
            raise CloseReason.RESETS.error()

    def last_answer(self) -> float:
        """When a call or a health check was last answered."""
        return max(self.answered, self.health_answered)

    def _answering(self) -> bool:
        """Whether calls are being answered: if so, closing the connection would be a free pass for all of them."""
        return bool(self._streams.waiting) or self.now - self.answered < ANSWERING_S

    def _on_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        self.spend(honest=False)
        if stream == 0:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is 5 bytes", stream)
        if int.from_bytes(payload[:4], "big") & MAX_STREAM_ID == stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "a stream cannot depend on itself", stream)

    def _on_rst_stream(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is 4 bytes")
        if stream > self._streams.last_id or not stream & 1:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on a stream that was never open")
        if stream not in self._streams:
            self.spend()
        self._streams.close(stream)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        self.spend(honest=False)
        if stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & ACK:
            return
        windows: list[int] = []
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.SETTINGS_ENABLE_PUSH and value > 1:
                raise H2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
            if name == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                windows.append(value)
            elif name == frames.SETTINGS_HEADER_TABLE_SIZE and value < TABLE_SIZE:
                self._sender.shrink_table()
            elif name == frames.SETTINGS_MAX_FRAME_SIZE:
                if not MIN_MAX_FRAME_SIZE <= value < 1 << 24:
                    raise H2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is not between 2^14 and 2^24-1")
                self._sender.max_frame = value
        if windows:
            self._sender.set_initial(*windows)
        self._sender.send(frames.frame(frames.SETTINGS, ACK, 0))

    def _on_push_promise(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise H2Error(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        self.spend()
        if stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "PING is 8 bytes")
        if not flags & ACK:
            self._sender.send(frames.frame(frames.PING, ACK, 0, payload))
        elif payload == GOAWAY_PING:
            self._owner.refuse_new()

    def _on_goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        self.spend(honest=False)
        if stream:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is at least 8 bytes")

    def _on_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        self.spend()
        if len(payload) != 4:
            raise H2Error(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is 4 bytes")
        if stream > self._streams.last_id or (stream and not stream & 1):
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that was never open")
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        if increment == 0:
            raise H2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0", stream)
        if stream == 0 or stream in self._streams:
            self._sender.window_update(stream, increment)
