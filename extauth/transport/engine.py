"""What one client may cost: the bounds on a connection, and how they are counted."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_BLOCK_BYTES: Final = 1_048_576
"""Of a header block, encoded, and of its list, decoded: past it the connection ends, for HPACK's state is lost."""


class Guard(StrEnum):
    """What a client was refused for; the name is the metric's label."""

    CONNECTIONS = "connections"
    IDLE = "idle"
    MESSAGE = "message"
    HEADERS = "headers"
    RESETS = "resets"
    CONTROL_FRAMES = "control_frames"
    SLOW_START = "slow_start"
    SLOW_REQUEST = "slow_request"
    SLOW_READER = "slow_reader"
    INVALID_CALL = "invalid_call"


OnGuard = Callable[[Guard], None]


class Shed(StrEnum):
    """Why a call was not counted in time and got the failure policy; the name is the metric's label.

    Too many calls wait for a batch, too many are open on the connection, or the call's own `grpc-timeout` is nearly
    over.
    """

    WAITING_CALLS = "waiting_calls"
    STREAMS = "streams"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of the h2 engine.

    `max_connections` are all that are open. The others hold for each one: `max_streams` at a time; `max_message_bytes`
    a message, also once it is decompressed; `max_header_bytes` a header list, decoded: a larger one is read and
    dropped, up to MAX_BLOCK_BYTES, and a block goes on in at most `max_continuations` frames; streams a second that
    the client makes the server reset, and control frames a second that ask for nothing, both with ten seconds'
    worth at once; `stall_timeout_s` for what the client owes: its preface, the rest of a request, reading its
    answers. `max_unfinished_bytes` are those of incomplete messages and header blocks on all connections together.
    In one turn of the event loop a connection gets `max_turn_bytes` and `max_turn_frames` handled, of which a whole
    call counts as one; the rest waits for its next turn.
    """

    max_connections: int = 1024
    max_streams: int = 1024
    max_message_bytes: int = 4_194_304
    max_header_bytes: int = 131_072
    max_continuations: int = 128
    max_resets_per_s: int = 1000
    max_control_frames_per_s: int = 1000
    stall_timeout_s: float = 10
    max_turn_bytes: int = 65_536
    max_turn_frames: int = 256
    max_unfinished_bytes: int = 67_108_864


class TokenBucket:
    """A token bucket: `per_s` tokens a second, of which ten seconds' worth keep."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._most = self._left = per_s * 10.0
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take a token; False where none is left."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
