"""A connection's socket: reads for it, writes for it, and keeps its timers, on the event loop."""

import asyncio
import random
from collections.abc import Callable, MutableSet
from typing import cast

from extauth.limiter.templates import Answer
from extauth.transport.engine import AGE_JITTER
from extauth.transport.h2.closing import CLOSE_DELAY_S, CloseReason, Unused
from extauth.transport.h2.connection import Connection
from extauth.transport.h2.phases import CUT, ENDING, FINISHED, LEAVING, OPEN, STARTING
from extauth.transport.h2.server_state import ServerState
from extauth.transport.waiting import Calls


class H2Protocol(asyncio.Protocol):
    """`asyncio` calls the methods of Protocol, the Batcher those of Caller.

    `connections` are all that are open; `made` is called once the connection is made, and is among them or turned away.
    """

    def __init__(
        self, state: ServerState, connections: "MutableSet[H2Protocol]", made: Callable[[], object] = lambda: None
    ) -> None:
        context = state.context
        self._state = state
        self._connections = connections
        self._made = made
        self._batcher = context.batcher
        self._clock = context.clock
        self._on_guard = context.on_guard
        self._limits = context.limits
        self._tls = context.tls
        opened_at = self._clock()
        self._connection = Connection(state, self, opened_at)
        age_s = self._limits.max_age_s * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)  # noqa: S311 - no secret
        self._old_at = opened_at + age_s if age_s else float("inf")
        self._unread = b""  # what came while a turn was scheduled
        self._turn_scheduled = False
        self._paused_since: float | None = None
        self._closing = False  # the connection is half-closed, or gone

    @property
    def leaving(self) -> bool:
        """Whether it is being ended."""
        return self._connection.phase >= LEAVING

    @property
    def opened_at(self) -> float:
        """When it was accepted."""
        return self._connection.opened_at

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or turn it away."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        tls = transport.get_extra_info("ssl_object")
        self._connection.is_http2 = tls is None or tls.selected_alpn_protocol() == "h2"  # RFC 9113 §3.2
        if self._state.stopping:  # the stop began during its TLS handshake
            self._turn_away(CloseReason.SHUTDOWN)
        elif len(self._connections) >= self._limits.max_connections:
            self._turn_away(CloseReason.TOO_MANY)
        elif tls is not None and self._tls is not None and not self._tls.admits(tls):
            self._connection.close()  # what it has sent already is not looked at
            self.close_at_once(CloseReason.OTHER_CLIENT)  # without SETTINGS: after these it would come again at once
        else:
            self._connections.add(self)
        self._made()

    def data_received(self, data: bytes) -> None:
        """Handle the bytes that came; the calls in them are submitted together."""
        if self._turn_scheduled:
            self._unread += data
            return
        connection = self._connection
        calls = connection.receive(data, self._clock())
        if connection.has_more:  # the next turn comes before the batch that these calls begin, and joins it
            self._schedule_turn()
        if calls is not None:
            self._batcher.submit(calls)
        self.flush()

    def eof_received(self) -> bool:
        """Have the connection closed (CloseReason.CLIENT_GONE): no client half-closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._closing = True
        self._unread = b""
        self._connections.discard(self)
        self._connection.close()

    def pause_writing(self) -> None:
        """Stop reading from a client that reads too slowly."""
        self._paused_since = self._clock()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again: the client has caught up."""
        self._paused_since = None
        if not self._turn_scheduled:
            self._transport.resume_reading()

    # Called by the batcher

    def drop_ended(self, calls: Calls) -> None:
        """Drop the calls that were cancelled or have expired."""
        self._connection.drop_ended(calls)

    def expire(self, calls: Calls, now: float) -> None:
        """Answer the calls whose deadline has come."""
        self._connection.expire(calls, now)
        self.flush()

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        """Take the answers, to be sent by the next `flush`."""
        self._connection.answer(calls, messages, self._clock())

    def flush(self) -> None:
        """Write what is to be sent, and close the connection if it is finished."""
        connection = self._connection
        data = connection.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)
        if connection.phase >= FINISHED and not self._closing:
            self._close()

    # Called by the server

    def check(self, now: float) -> None:
        """End what has stalled, and leave if the connection is old; called every second or so."""
        connection, paused = self._connection, self._paused_since
        since = now - self._limits.stall_timeout_s
        if paused is not None and paused < since and STARTING < connection.phase < ENDING:
            self.close_at_once(CloseReason.SLOW_READER)
            return
        if now >= self._old_at and connection.phase is OPEN:
            self.go_away(CloseReason.OLD)
        connection.check(now, hurry=now >= self._old_at + self._limits.age_grace_s)
        self.flush()

    def is_fresh(self) -> bool:
        """As Connection.is_fresh."""
        return self._connection.is_fresh()

    def unused(self, now: float) -> Unused | None:
        """As Connection.unused."""
        return self._connection.unused(now)

    def end_unused(self) -> None:
        """Make room: at once, with its place free now, if nothing has been asked on it yet, else gracefully."""
        if not self._connection.is_fresh():
            self.go_away(CloseReason.IDLE)
            return
        self._connections.discard(self)
        if self._connection.phase is STARTING:
            self.close_at_once(CloseReason.IDLE)
        else:
            self._turn_away(CloseReason.IDLE)

    def go_away(self, reason: CloseReason) -> None:
        """Close gracefully."""
        if self._connection.phase >= LEAVING:
            return
        reason.count(self._on_guard)
        self._connection.go_away(reason)
        self.flush()
        if self._connection.phase is LEAVING:
            asyncio.get_running_loop().call_later(CLOSE_DELAY_S, self._refuse_new)

    def health_changed(self) -> None:
        """Send the health to the client, if it watches it."""
        self._connection.health_changed()
        self.flush()

    def close_at_once(self, reason: CloseReason) -> None:
        """Close without sending anything more."""
        reason.count(self._on_guard)
        self._transport.abort()

    # Turns, and closing

    def _schedule_turn(self) -> None:
        """Let other connections have their turn first."""
        self._turn_scheduled = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Handle the next part of what has come; reading goes on once everything is handled."""
        self._turn_scheduled = False
        data, self._unread = self._unread, b""
        self.data_received(data)
        if not self._turn_scheduled and self._paused_since is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _turn_away(self, reason: CloseReason) -> None:
        self._closing = True
        reason.count(self._on_guard)
        self._connection.turn_away(reason)
        self.flush()
        self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_DELAY_S, self._transport.abort)  # if the client reads nothing

    def _refuse_new(self) -> None:
        self._connection.refuse_new()
        self.flush()

    def _close(self) -> None:
        """Half-close, and close a little later: a close with unread bytes would discard what we wrote."""
        self._closing = True
        if self._connection.phase is CUT:
            self.close_at_once(CloseReason.UNANSWERED)
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_DELAY_S, self._transport.abort)
