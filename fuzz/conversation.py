"""One fuzzed connection: it goes through a script, and what it holds and writes is checked on the way."""

import asyncio
import gc
import weakref
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from extauth.config.merge import load_rules
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.limiter.build import LimiterOptions, build
from extauth.limiter.counters import Group, TakeResult
from extauth.rules.model import OnStoreFailure
from extauth.transport.batching import Batcher
from extauth.transport.engine import ConnectionLimits, EngineContext
from extauth.transport.h2 import frames
from extauth.transport.h2.closing import CLOSE_DELAY_S, CloseReason
from extauth.transport.h2.frames import PREFACE
from extauth.transport.h2.hpack import MAX_REMEMBERED, MAX_REMEMBERED_BYTES
from extauth.transport.h2.phases import ENDING
from extauth.transport.h2.preface import NOT_HTTP2
from extauth.transport.h2.protocol import H2Protocol
from extauth.transport.h2.server_state import ServerState
from fuzz.script import Action, Script
from fuzz.wire import Loop, Time, Wire, check_written
from tests.support.h2_peer import CONFIG, START

# Small, so that small inputs reach them.
LIMITS = ConnectionLimits(
    max_streams=4,
    max_message_bytes=1024,
    max_header_bytes=1024,
    max_continuations=3,
    max_resets_per_s=1,
    max_control_frames_per_s=2,
    stall_timeout_s=10,
    max_unfinished_bytes=2048,
    max_turn_frames=3,
)
MAX_WAITING = 6
MAX_BATCH = 2
COLLECT_EVERY = 50  # inputs, by their bytes, so that what is found is found again


class BrokenError(Exception):
    """Stands for a bug of ours in deciding a batch."""


class Counters(MemoryCounters):
    """Counters that can be held, and can fail."""

    def __init__(self, clock: Time) -> None:
        super().__init__(clock.us)
        self.open = asyncio.Event()
        self.open.set()
        self.error: Callable[[], Exception] | None = None

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Decide, or wait, or fail."""
        await self.open.wait()
        if self.error is not None:
            raise self.error()
        return await super().take(groups)


_RULES = load_rules({"f": CONFIG})
_CLOCK = Time()
_LOOP = Loop(_CLOCK)
_alive: "weakref.WeakSet[H2Protocol]" = weakref.WeakSet()
gc.disable()  # nothing may need it
gc.freeze()


class Conversation:
    """One connection, and all that an input does to it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.counters = Counters(_CLOCK)
        decider = build(_RULES, self.counters, LimiterOptions(on_store_failure=OnStoreFailure.ERROR))
        self.batcher = Batcher(decider, max_batch=MAX_BATCH, max_waiting=MAX_WAITING, clock=_CLOCK)
        state = ServerState(EngineContext(planner=decider.planner, batcher=self.batcher, limits=LIMITS))
        state.health.report(serving=True, store=True)
        self._connections: set[H2Protocol] = set()
        self.unfinished = state.unfinished
        self.protocol = H2Protocol(state, self._connections)
        self.connection = self.protocol._connection
        self.wire = Wire(asyncio.get_running_loop())

    async def run(self) -> None:
        """Do it all, then close, and check on the way that nothing grows and in the end that nothing is left."""
        sent = (START if self._script.greeted else b"") + self._script.sent
        self.wire.attach(self.protocol)
        at = len(sent) - len(self._script.sent)
        self.wire.deliver(sent[:at])
        for action, size in self._script.steps:
            self.wire.deliver(sent[at : at + size])
            at += size
            self._bounded()
            await self._act(action)
            self._bounded()
        self.wire.deliver(sent[at:])
        self._bounded()
        self.counters.open.set()
        await self._settle()
        self._bounded()
        assert not self.connection._streams.waiting, "calls that nobody answers"
        assert not self.connection._streams.ended_calls or self.connection.phase >= ENDING
        self.wire.unstick()
        self.wire.cut()
        await self._settle()
        _CLOCK.now += 2 * CLOSE_DELAY_S  # the timers of what closes
        await self._settle()
        self._empty()
        check_written(sent, bytes(self.wire.written).removesuffix(NOT_HTTP2))

    async def _settle(self) -> None:
        """Let the loop turn until nothing is left to decide."""
        for _ in range(5 + 3 * MAX_WAITING):
            await asyncio.sleep(0)
        while self.protocol._turn_scheduled:  # noqa: ASYNC110 - each turn of the loop is one of the connection
            await asyncio.sleep(0)
        for _ in range(5 + 3 * MAX_WAITING):
            await asyncio.sleep(0)
        assert not self.batcher._tasks
        assert self.batcher.room() == MAX_WAITING

    async def _act(self, action: Action) -> None:  # noqa: PLR0912 - one a kind
        match action:
            case Action.TURN:
                for _ in range(3):
                    await asyncio.sleep(0)
            case Action.HOLD:
                self.counters.open.clear()
            case Action.RELEASE:
                self.counters.error = None
                self.counters.open.set()
            case Action.FAIL:
                self.counters.error = partial(StoreError, "timeout", "fails")
            case Action.BREAK:
                self.counters.error = BrokenError
            case Action.WAIT | Action.STALL:
                _CLOCK.now += 3 if action is Action.WAIT else LIMITS.stall_timeout_s + 1
                for connection in list(self._connections):
                    connection.check(_CLOCK())
                await asyncio.sleep(0)
            case Action.STICK:
                self.wire.stick()
            case Action.UNSTICK:
                self.wire.unstick()
            case Action.DRAIN:
                for connection in list(self._connections):
                    connection.go_away(CloseReason.SHUTDOWN)
            case Action.HANG_UP:
                self.wire.hang_up()
            case Action.CUT:
                self.wire.cut(ConnectionResetError())

    def _bounded(self) -> None:
        """What the connection holds is bounded, and hangs together."""
        connection, streams = self.connection, self.connection._streams
        receiver = connection._receiver
        waiting, opened, sending = streams.waiting.keys(), streams.open.keys(), streams.sending.keys()
        # A stream that watches the health may be sending besides, and so may one that is open for more of its request.
        assert len(streams) == len(waiting | opened | sending) + len(streams.watching) + len(opened & sending)
        assert all(streams.open[number].answering for number in opened & sending)
        assert not streams.ignored.keys() & (waiting | opened | sending)
        assert len(waiting) <= LIMITS.max_streams
        assert len(opened) <= LIMITS.max_streams
        assert len(streams.ignored) <= LIMITS.max_streams
        assert streams.deadlines.keys() <= waiting
        assert streams.ended_calls >= 0
        if connection.phase < ENDING:
            kept = waiting | opened | sending | streams.watching.keys()
            assert streams.window_changes.keys() <= kept, "windows of streams that are closed"
            assert all(len(request.body) <= request.charged for request in streams.open.values())
            assert receiver.requests.unacknowledged <= receiver.requests.window
            assert not connection._sender.out
            most = frames.HEAD.size + frames.MIN_MAX_FRAME_SIZE + len(PREFACE)
            assert connection.has_more == self.protocol._turn_scheduled
            assert len(connection._rest) < most or connection.has_more
            assert not self.protocol._unread or connection.has_more
        fragments = 0 if receiver.block is None else len(receiver.block.fragments)
        assert self.unfinished.used == fragments + sum(request.charged for request in streams.open.values())
        assert self.unfinished.used <= LIMITS.max_unfinished_bytes + LIMITS.max_message_bytes + 5
        known = receiver._decoder.known
        assert len(known) <= MAX_REMEMBERED
        assert all(len(block) <= MAX_REMEMBERED_BYTES for block in known)
        assert 0 <= self.batcher.room() <= MAX_WAITING

    def _empty(self) -> None:
        """After the end, nothing is left."""
        streams = self.connection._streams
        assert not self._connections
        assert not len(streams)
        assert not streams.deadlines
        assert not self.unfinished.used
        assert not len(self.batcher.deadlines)


def check(data: bytes) -> None:
    """Run a connection through the input; nothing may be raised, to us or to the event loop."""
    errors: list[dict[str, Any]] = []
    _LOOP.set_exception_handler(lambda _loop, context: errors.append(context))
    script = Script.read(data)
    if collects := zlib.crc32(data) % COLLECT_EVERY == 0:
        gc.collect()

    async def run() -> None:
        conversation = Conversation(script)
        _alive.add(conversation.protocol)
        await conversation.run()

    _LOOP.run_until_complete(run())
    if collects:
        assert not gc.collect(), "cycles, which the service keeps the collector from"
    unexpected = [context for context in errors if not isinstance(context.get("exception"), BrokenError)]
    assert not unexpected, unexpected
    errors.clear()  # whose tracebacks hold the connection
    assert not _alive, "a connection that is closed, and still held"
