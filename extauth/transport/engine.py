"""The interface between app and the gRPC engines: what an engine does and is built from, and the limits on clients."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from extauth.limiter.planner import Planner
from extauth.transport.batching import Batcher
from extauth.transport.deadlines import Clock
from extauth.transport.tls import Tls

MAX_BLOCK_BYTES: Final = 1_048_576
"""The size of an encoded header block, and of its decoded list, past which the connection ends: HPACK lost track."""

AGE_JITTER: Final = 0.1
"""The share of the greatest age by which connections' ages differ from it: those opened together end one by one."""


class Guard(StrEnum):
    """Why a client was refused; the value is the label of the metric."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """The limits of the h2 engine on its clients; those from `max_streams` to `stall_timeout_s` hold per connection."""

    max_connections: int = 1024
    """Open connections, TLS handshakes included."""

    max_streams: int = 1024
    """Concurrent streams."""

    max_message_bytes: int = 4_194_304
    """The size of a message, also once it is decompressed."""

    max_header_bytes: int = 131_072
    """The size of a decoded header list; a larger one is read and dropped, up to MAX_BLOCK_BYTES."""

    max_continuations: int = 128
    """CONTINUATION frames of a header block."""

    max_resets_per_s: int = 1000
    """Streams a second that the client makes the server reset; ten seconds' worth may come at once."""

    max_control_frames_per_s: int = 1000
    """Control frames a second that request nothing; ten seconds' worth may come at once."""

    stall_timeout_s: float = 10
    """The time in which a client must send its preface, make progress with a request, and read its answers."""

    max_age_s: float = 0
    """The age of a connection, give or take AGE_JITTER, at which GOAWAY has the client open another one. 0: any age."""

    age_grace_s: float = 10
    """The time for open calls after `max_age_s`; requests that are incomplete by then are answered OVER_LIMIT."""

    max_turn_bytes: int = 65_536
    """Bytes handled in one turn of the event loop; the rest waits for the connection's next turn."""

    max_turn_frames: int = 256
    """Frames handled in one turn of the event loop; a whole call counts as one frame."""

    max_unfinished_bytes: int = 67_108_864
    """The memory of incomplete messages and header blocks, on all connections together."""


class TokenBucket:
    """A token bucket: it gets `per_s` tokens a second and holds ten seconds' worth."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._most = self._left = per_s * 10.0
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take a token; False if none is left."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine is built from: it hands calls to `planner` and `batcher`, and reports refusals to `on_guard`."""

    planner: Planner
    batcher: Batcher
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    on_guard: OnGuard = lambda _guard: None
    tls: Tls | None = None
    """With it, an engine serves only over TLS."""

    reflection: bool = True
    """Whether clients may ask which methods and messages there are (`transport/reflection.py`)."""

    traced: bool = False
    """Whether the traces of calls are read from their headers."""

    @property
    def clock(self) -> Clock:
        """The batcher's clock: everything in an engine uses this one."""
        return self.batcher.clock


class Engine(Protocol):
    """Serves RateLimitService, grpc.health.v1 and grpc.reflection on one address."""

    async def start(self) -> None:
        """Listen and report SERVING; raises SettingsError if the address is not available."""
        ...

    async def report(self, *, serving: bool, store: bool) -> None:
        """Report to health checks whether this replica is SERVING, and under `extauth.store` whether its store counts.

        From `start` on it is SERVING, and its store is not; from `drain` on neither is, whatever is reported.
        """
        ...

    async def drain(self) -> None:
        """Report NOT_SERVING to health checks; calls are still answered."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept no new calls, and answer those in flight within `grace_s`."""
        ...
