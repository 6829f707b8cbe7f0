"""A closed loop of calls over raw HTTP/2, which prints a JSON object.

`python -m bench.load TARGET CASE CALLS SEED [CONNECTIONS STREAMS]`: TARGET is HOST:PORT; the last two replace
the numbers of the case. Requests are built before the clock starts, so that this process costs little beside a server.
`cpu` is this process's share of a core: near 1, it was the bottleneck.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import uvloop

from bench.cases import CASES, PEER_CASES, Case, blocks, messages
from extauth.transport.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    MAX_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    frame,
    settings,
    window_update,
)
from extauth.transport.h2.grpc_framing import prefixed

OK, OVER_LIMIT = b"\x08\x01", b"\x08\x02"


class Client(asyncio.Protocol):
    """One connection that keeps `streams` calls in flight until its requests are used up."""

    def __init__(self, requests: list[bytes], streams: int, done: Callable[[str], None]) -> None:
        self._requests = requests
        self._streams = streams
        self._done = done
        self._next = 0
        self._rest = b""
        self._sent = [0.0] * len(requests)
        self.finished = 0
        self.denied = 0
        self.admitted = 0
        self.latencies: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        greeting = settings({SETTINGS_INITIAL_WINDOW_SIZE: MAX_WINDOW})
        self._transport.write(PREFACE + greeting + window_update(0, MAX_WINDOW - 65_535))

    def begin(self) -> None:
        """Send the first calls."""
        self._send(self._streams)

    def _send(self, number: int) -> None:
        end = min(self._next + number, len(self._requests))
        if self._next < end:
            now = time.perf_counter()
            self._sent[self._next : end] = [now] * (end - self._next)
            self._transport.write(b"".join(self._requests[self._next : end]))
            self._next = end

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, size, ended, now = 0, len(data), 0, time.perf_counter()
        control = b""
        while size - at >= 9:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > size:
                break
            if kind == DATA:
                code = data[at + 14 : at + 16]
                self.denied += code == OVER_LIMIT
                self.admitted += code == OK
            elif kind == HEADERS:
                if flags & END_STREAM:
                    ended += 1
                    self.latencies.append(now - self._sent[stream >> 1])
            elif kind in (RST_STREAM, GOAWAY):
                self._done(f"the server refused: frame {kind}, {data[at + 9 : end]!r}")
                return
            elif kind in (SETTINGS, PING) and not flags & 1:
                control += frame(kind, 1, 0, data[at + 9 : end] if kind == PING else b"")
            at = end
        self._rest = data[at:]
        if control:
            self._transport.write(control)
        if ended:
            self.finished += ended
            self._send(ended)
            if self.finished == len(self._requests):
                self._done("")


def build(case: Case, calls: int, seed: int) -> list[bytes]:
    """A connection's requests, in order."""
    heads, bodies = blocks(case, seed), messages(case, seed)
    requests = []
    for stream, head, body in zip(range(1, 2 * calls, 2), heads, bodies, strict=False):
        requests.append(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, prefixed(body)))
    return requests


async def run(target: str, case: Case, calls: int, seed: int) -> dict[str, float]:
    """Make `calls` calls."""
    loop = asyncio.get_running_loop()
    host, _, port = target.rpartition(":")
    waiting = set(range(case.connections))
    all_done = loop.create_future()

    def finished(i: int, error: str) -> None:
        waiting.discard(i)
        if error and not all_done.done():
            all_done.set_exception(SystemExit(error))
        elif not waiting and not all_done.done():
            all_done.set_result(None)

    clients = []
    for i in range(case.connections):
        requests = build(case, calls // case.connections, seed * 100 + i)
        client = Client(requests, case.streams, lambda error, i=i: finished(i, error))  # type: ignore[misc]
        await loop.create_connection(lambda client=client: client, host, int(port))  # type: ignore[misc]
        clients.append(client)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    began, cpu = time.perf_counter(), time.process_time()
    for client in clients:
        client.begin()
    await asyncio.wait_for(all_done, 120)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    latencies = sorted(itertools.chain.from_iterable(client.latencies for client in clients))
    done = sum(client.finished for client in clients)
    return {
        "calls": done,
        "denied": sum(client.denied for client in clients),
        "admitted": sum(client.admitted for client in clients),
        "seconds": seconds,
        "cpu": cpu / seconds,
        "p50_us": latencies[done // 2] * 1e6,
        "p99_us": latencies[done * 99 // 100] * 1e6,
    }


def main() -> None:
    """Run it."""
    target, name, calls, seed, *shape = sys.argv[1:]
    case = (CASES | PEER_CASES)[name]
    if shape:
        case = replace(case, connections=int(shape[0]), streams=int(shape[1]))
    print(json.dumps(uvloop.run(run(target, case, int(calls), int(seed)))), flush=True)


if __name__ == "__main__":
    main()
