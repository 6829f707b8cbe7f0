"""Bytes to a connection, in pieces, with what else happens to one in between.

An input is a byte: its high bit for a valid preface and SETTINGS before everything, the others for how many steps there
are; a step is an Action and, in two bytes, how many bytes the client sends before it; then come the client's bytes, of
which the steps leave a rest that is sent last.
"""

import zlib
from random import Random

from extauth.transport.h2 import frames
from extauth.transport.h2.control_frames import GOAWAY_PING
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
from fuzz.conversation import check
from fuzz.script import Action, Script, Step
from fuzz.target import Flip, Target, mutate_items
from fuzz.wire import split
from tests.support.h2_peer import BLOCK, MESSAGE, PATH, block, call


def seeds() -> dict[str, bytes]:
    """Inputs to begin with."""
    heads = frame(HEADERS, END_HEADERS, 1, BLOCK)
    body = prefixed(MESSAGE)
    gzip = zlib.compress(MESSAGE, wbits=31)
    window = frames.SETTINGS_INITIAL_WINDOW_SIZE
    health = block("/grpc.health.v1.Health/Check")
    watch = block("/grpc.health.v1.Health/Watch")
    reflected = frame(HEADERS, END_HEADERS, 1, block("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"))
    listed, described = prefixed(b"\x3a\x01*"), prefixed(b"\x22\x16grpc.health.v1.Health")
    greeted = {
        "call": call(1),
        "calls": b"".join(call(stream) for stream in (1, 3, 5, 7)),
        "too-many-calls": b"".join(call(stream) for stream in range(1, 21, 2)),
        "denied": b"".join(call(s, MESSAGE + b"\x18\xe8\x07") for s in (1, 3)),
        "invalid": call(1, b"\xff") + call(3, b""),
        "health": call(1, b"", health),
        "watched": call(1, b"", watch) + call(3),
        "reflected": reflected + frame(DATA, 0, 1, listed[:4]) + frame(DATA, END_STREAM, 1, listed[4:] + described),
        "reflected-on": reflected + frame(DATA, 0, 1, listed * 3) + call(3) + frame(DATA, 0, 1, described),
        "reflected-shut": frames.settings({window: 0})
        + reflected
        + frame(DATA, 0, 1, described)
        + frames.window_update(1, 99)
        + frame(DATA, END_STREAM, 1, b""),
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
        "drained-between-turns": frame(frames.PING, frames.ACK, 0, GOAWAY_PING) + call(1) + call(3) + call(5) + call(7),
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
