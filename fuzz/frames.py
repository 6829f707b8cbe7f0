"""Bytes to a connection, in pieces, with what else happens to one in between.

An input is a byte: its high bit for a valid preface and SETTINGS before everything, the others for how many steps there
are; a step is an Action and, in two bytes, how many bytes the client sends before it; then come the client's bytes, of
which the steps leave a rest that is sent last.
"""

import asyncio
import gc
import struct
import weakref
import zlib
from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from functools import partial
from random import Random
from typing import Any, NamedTuple

from extauth.config.merge import load_rules
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.limiter.counter_names import KeyNamer
from extauth.limiter.counters import Group, TakeResult
from extauth.limiter.limiter import Limiter, OnStoreFailure
from extauth.limiter.plan import Planner
from extauth.rls.request import decode_descriptor, split_request
from extauth.rules.matcher import Matcher
from extauth.transport.batching import Batcher
from extauth.transport.engine import ConnectionLimits, EngineContext
from extauth.transport.h2 import frames
from extauth.transport.h2.connection import ENDING, GOAWAY_PING
from extauth.transport.h2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITIZED,
    ErrorCode,
    frame,
)
from extauth.transport.h2.grpc_framing import literal, prefixed
from extauth.transport.h2.health import SERVING
from extauth.transport.h2.hpack import MAX_REMEMBERED, MAX_REMEMBERED_BYTES
from extauth.transport.h2.preface import NOT_HTTP2
from extauth.transport.h2.protocol import CLOSE_DELAY_S, H2Protocol
from extauth.transport.h2.server_state import ServerState
from fuzz.target import Flip, Target, mutate_items
from fuzz.wire import Loop, Time, Wire, check_written, split
from tests.support.h2_peer import BLOCK, CONFIG, MESSAGE, PATH, START, block, call

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
MAX_STEPS = 24
COLLECT_EVERY = 50  # inputs, by their bytes, so that what is found is found again
GREETED = 0x80


class Action(IntEnum):
    """What happens after a piece of the client's bytes."""

    NOTHING = 0
    TURN = auto()  # of the event loop
    HOLD = auto()  # the store does not answer
    RELEASE = auto()
    FAIL = auto()  # the store answers with an error
    BREAK = auto()  # an error of ours
    WAIT = auto()  # three seconds, and a check for what is stalled
    STALL = auto()  # longer than a client may take
    STICK = auto()  # the client reads no more
    UNSTICK = auto()
    DRAIN = auto()
    HANG_UP = auto()
    CUT = auto()


class Step(NamedTuple):
    """The client sends so many bytes, then something happens."""

    action: Action
    size: int


class Script(NamedTuple):
    """An input, read."""

    greeted: bool
    steps: list[Step]
    sent: bytes

    @classmethod
    def read(cls, data: bytes) -> "Script":
        """Any bytes are one."""
        head = data[0] if data else 0
        steps = min(head & ~GREETED, MAX_STEPS, (len(data) - 1) // 3)
        read = [struct.unpack_from(">BH", data, 1 + 3 * n) for n in range(steps)]
        steps_read = [Step(Action(action % len(Action)), size) for action, size in read]
        return cls(bool(head & GREETED), steps_read, data[1 + 3 * max(steps, 0) :])

    def write(self) -> bytes:
        """The input again."""
        steps = self.steps[:MAX_STEPS]
        head = bytes(((GREETED if self.greeted else 0) | len(steps),))
        return head + b"".join(struct.pack(">BH", action, size & 0xFFFF) for action, size in steps) + self.sent


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


_MATCHER = Matcher(load_rules({"f": CONFIG}))
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
        limiter = Limiter(self.counters, OnStoreFailure.ERROR)
        self.batcher = Batcher(
            limiter, lambda _decided, _times: None, max_batch=MAX_BATCH, max_waiting=MAX_WAITING, clock=_CLOCK
        )
        planner = Planner(_MATCHER, split_request, decode_descriptor, KeyNamer("t"))
        state = ServerState(EngineContext(planner=planner, batcher=self.batcher, limits=LIMITS))
        state.health.status = SERVING
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
        assert not self.connection._streams.abandoned or self.connection.phase >= ENDING
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
                    connection.go_away()
            case Action.HANG_UP:
                self.wire.hang_up()
            case Action.CUT:
                self.wire.cut(ConnectionResetError())

    def _bounded(self) -> None:
        """What the connection holds is bounded, and hangs together."""
        connection, streams = self.connection, self.connection._streams
        receiver = connection._receiver
        waiting, opened, sending = streams.waiting.keys(), streams.open.keys(), streams.sending.keys()
        # A stream that watches the health may be sending besides.
        assert len(streams) == len(waiting | opened | sending) + len(streams.watching)
        assert not streams.ignored.keys() & (waiting | opened | sending)
        assert len(waiting) <= LIMITS.max_streams
        assert len(opened) <= LIMITS.max_streams
        assert len(streams.ignored) <= LIMITS.max_streams
        assert streams.deadlines.keys() <= waiting
        assert streams.abandoned >= 0
        if connection.phase < ENDING:
            kept = waiting | opened | sending | streams.watching.keys()
            assert streams.window_changes.keys() <= kept, "windows of streams that are closed"
            assert all(len(request.body) <= request.charged for request in streams.open.values())
            assert receiver.requests.unacknowledged <= receiver.requests._window
            assert not connection._sender._out
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


def seeds() -> dict[str, bytes]:
    """Inputs to begin with."""
    heads = frame(HEADERS, END_HEADERS, 1, BLOCK)
    body = prefixed(MESSAGE)
    gzip = zlib.compress(MESSAGE, wbits=31)
    window = frames.SETTINGS_INITIAL_WINDOW_SIZE
    health = block("/grpc.health.v1.Health/Check")
    watch = block("/grpc.health.v1.Health/Watch")
    greeted = {
        "call": call(1),
        "calls": b"".join(call(stream) for stream in (1, 3, 5, 7)),
        "too-many-calls": b"".join(call(stream) for stream in range(1, 21, 2)),
        "denied": b"".join(call(s, MESSAGE + b"\x18\xe8\x07") for s in (1, 3)),
        "invalid": call(1, b"\xff") + call(3, b""),
        "health": call(1, b"", health),
        "watched": call(1, b"", watch) + call(3),
        "indexed": call(1, MESSAGE, b"\x83\x86\x44\x01/\x41\x01x" + literal(b"te", b"trailers")),
        "split-body": heads + frame(DATA, 0, 1, body[:3]) + frame(DATA, END_STREAM, 1, body[3:]),
        "padded": frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x03" + bytes(5) + BLOCK + bytes(3))
        + frame(DATA, END_STREAM | PADDED, 1, b"\x02" + body + bytes(2)),
        "continued": frame(HEADERS, 0, 1, BLOCK[:9])
        + frame(CONTINUATION, 0, 1, BLOCK[9:20])
        + frame(CONTINUATION, END_HEADERS, 1, BLOCK[20:])
        + frame(DATA, END_STREAM, 1, body),
        "trailers": heads + frame(DATA, 0, 1, body) + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"y")),
        "no-body": frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK),
        "gzip": frame(HEADERS, END_HEADERS, 1, block(PATH, ("grpc-encoding", "gzip")))
        + frame(DATA, END_STREAM, 1, b"\x01" + len(gzip).to_bytes(4, "big") + gzip),
        "encoding": call(1, MESSAGE, block(PATH, ("grpc-encoding", "br"))) + call(3),
        "length": call(1, MESSAGE, block(PATH, ("content-length", str(len(body))))),
        "timeout": call(1, MESSAGE, block(PATH, ("grpc-timeout", "1S"))),
        "unknown-method": call(1, MESSAGE, block("/x")) + call(3),
        "plain-http": frame(HEADERS, END_HEADERS | END_STREAM, 1, block("/", method="GET", grpc=False)),
        "too-large": heads + frame(DATA, 0, 1, b"\x00\x00\x00\x04\x01") + frame(DATA, END_STREAM, 1, bytes(40)),
        "reset": call(1) + frames.rst_stream(1, ErrorCode.CANCEL) + call(3),
        "resets": b"".join(call(s) + frames.rst_stream(s, ErrorCode.CANCEL) for s in range(1, 25, 2)),
        "pings": frame(frames.PING, 0, 0, b"12345678") * 3 + frame(frames.PING, frames.ACK, 0, GOAWAY_PING),
        "shut-window": frames.settings({window: 0}) + call(1) + frames.window_update(1, 9) + call(3, b"", health),
        "small-window": frames.settings({window: 7}) + call(1) + frames.settings({window: 70}) + call(3),
        "grown": heads + frames.window_update(1, 100) + frames.window_update(0, 9) + frame(DATA, END_STREAM, 1, body),
        "overflow": heads + frames.window_update(1, 2**31 - 1) + call(3) + frames.window_update(0, 2**31 - 1),
        "settings": frames.settings({1: 0, 2: 0, 3: 1, 4: 9, 5: 20_000, 6: 99, 7: 7})
        + frame(frames.SETTINGS, frames.ACK, 0),
        "priority": frame(frames.PRIORITY, 0, 3, bytes(5)) + call(1) + frame(frames.PRIORITY, 0, 1, bytes(5)),
        "goaway": call(1) + frame(frames.GOAWAY, 0, 0, bytes(8)) + call(3),
        "push": frame(frames.PUSH_PROMISE, 0, 1, bytes(4)),
        "unknown-frame": frame(77, 255, 9, b"x") + call(1),
        "late-data": call(1) + frame(DATA, 0, 1, b"x") + call(3),
    }
    two = call(1) + call(3)
    half = len(call(1))
    acted = {
        action.name.lower(): Script(True, [Step(action, half), Step(Action.TURN, half)], two + call(5))
        for action in Action
    }
    held = [Step(Action.HOLD, half), Step(Action.TURN, 0)]
    acted["held-then-reset"] = Script(
        True, [*held, Step(Action.RELEASE, 13)], call(1) + frames.rst_stream(1, ErrorCode.CANCEL) + call(3)
    )
    acted["held-then-cut"] = Script(True, [*held, Step(Action.CUT, half), Step(Action.RELEASE, 0)], two)
    acted["held-then-drained"] = Script(True, [*held, Step(Action.DRAIN, 0), Step(Action.RELEASE, half)], two)
    acted["held-past-deadline"] = Script(
        True,
        [*held, Step(Action.WAIT, half), Step(Action.RELEASE, 0)],
        call(1, MESSAGE, block(PATH, ("grpc-timeout", "1S"))) + call(3),
    )
    acted["stuck"] = Script(True, [Step(Action.STICK, 0), Step(Action.TURN, 4 * half), Step(Action.STALL, 0)], two * 2)
    acted["piecewise"] = Script(True, [Step(Action.TURN, 7)] * 20, two)
    raw = {
        "raw-preface": PREFACE + frames.settings({3: 100, 4: 65_535}) + call(1),
        "raw-http1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "raw-no-settings": PREFACE + frame(frames.PING, 0, 0, bytes(8)),
        "raw-nothing": b"",
        "raw-garbage": b"\x16\x03\x01\x02\x00\x01\x00",
    }
    scripts = {name: Script(True, [], sent) for name, sent in greeted.items()}
    scripts |= acted | {name: Script(False, [Step(Action.TURN, 11)], sent) for name, sent in raw.items()}
    return {name: script.write() for name, script in scripts.items()}


_Frame = tuple[int, int, int, bytes]


def mutate(data: bytes, rng: Random, flip: Flip) -> bytes:
    """Mutate steps, or frames and their heads with them."""
    if rng.random() < 0.1:
        return flip(data)
    script = Script.read(data)
    steps = list(script.steps)
    sent = script.sent
    if rng.random() < 0.3:

        def step() -> Step:
            return Step(Action(rng.randrange(len(Action))), rng.choice((0, 9, 13, len(call(1)), rng.randrange(300))))

        mutate_items(steps, rng, lambda old: Step(step().action, old.size) if rng.random() < 0.5 else step(), step)
    else:
        start = PREFACE if sent.startswith(PREFACE) else b""
        found: list[_Frame] = list(split(sent[len(start) :]))
        rest = sent[len(start) + sum(frames.HEAD.size + len(payload) for *_, payload in found) :]

        def change(old: _Frame) -> _Frame:
            return _change(old, rng, flip)

        mutate_items(found, rng, change, lambda: rng.choice(FRESH))
        if rng.random() < 0.3:
            found = _renumbered(found)
        sent = start + b"".join(frame(*each) for each in found) + rest
    return Script(script.greeted ^ (rng.random() < 0.02), steps, sent).write()


def _change(old: _Frame, rng: Random, flip: Flip) -> _Frame:
    kind, flags, stream, payload = old
    match rng.randrange(7):
        case 0:
            kind = rng.randrange(11)
        case 1:
            flags ^= 1 << rng.choice((0, 0, 2, 3, 5, rng.randrange(8)))
        case 2:
            stream = rng.choice((0, 1, 2, 3, 5, max(stream - 2, 0), min(stream + 2, 2**32 - 1), 2**31 - 1))
        case _:
            payload = flip(payload)
    return kind, flags, stream, payload


def _renumbered(found: list[_Frame]) -> list[_Frame]:
    """Each HEADERS opens a stream of its own, which the DATA after it goes on with."""
    last, renumbered = -1, []
    for kind, flags, stream, payload in found:
        last += 2 if kind == HEADERS else 0
        renumbered.append((kind, flags, last if kind in (HEADERS, DATA) and last > 0 else stream, payload))
    return renumbered


SEEDS = seeds()
FRESH = [each for data in SEEDS.values() for each in split(Script.read(data).sent.removeprefix(PREFACE))]
TARGET = Target(SEEDS, check, mutate)
