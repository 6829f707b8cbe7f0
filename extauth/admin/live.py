"""The streams that feed the live page: server-sent events (HTML Living Standard, 9.2)."""

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, Protocol
from weakref import WeakSet

from extauth.admin.routes import Answer, Request, refusal

MOST_STREAMS: Final = 16
EVENT_S: Final = 1.0
EVENTS: Final = "text/event-stream; charset=utf-8"

_FULL: Final = f"There are {MOST_STREAMS} streams already. Close the live page somewhere else, or wait.\n"


class Feed(Protocol):
    """What the events tell."""

    async def event(self, seen: object) -> tuple[Iterator[bytes], object]:
        """The next event's data, one line of text in pieces, for a page that has had everything up to `seen`.

        Returns, too, up to where it has had everything afterwards: the `seen` of the event after this one. At first
        `seen` is None.
        """
        ...


class LiveStreams:
    """At most MOST_STREAMS streams, each of which gets an event every `every_s` seconds.

    The next event is made once the client has read the one before, so nothing is kept for a slow reader.
    """

    def __init__(self, feed: Feed, *, every_s: float = EVENT_S) -> None:
        self._feed = feed
        self._every_s = every_s
        self._ending = asyncio.Event()
        self._open: WeakSet[_LiveStream] = WeakSet()  # one that is lost before its answer begins is forgotten by itself

    def answer(self, _request: Request) -> Answer:
        """A stream, or 503 where there are too many."""
        if len(self._open) >= MOST_STREAMS:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, _FULL, headers=[("Retry-After", "5")])
        stream = _LiveStream(self._feed, self._every_s, self._ending, self._open)
        self._open.add(stream)
        return Answer(stream, EVENTS, headers=[("Cache-Control", "no-store")])

    def end(self) -> None:
        """End all streams: each at once, unless its client is still reading."""
        self._ending.set()


class _LiveStream:
    """One stream."""

    def __init__(self, feed: Feed, every_s: float, ending: asyncio.Event, among: "WeakSet[_LiveStream]") -> None:
        self._feed = feed
        self._every_s = every_s
        self._ending = ending
        self._among = among
        self._seen: object = None
        self._due = 0.0

    async def next(self) -> Iterator[bytes] | None:
        """The next event; None once the streams are ended."""
        try:
            async with asyncio.timeout_at(self._due):
                await self._ending.wait()
        except TimeoutError:
            pieces, self._seen = await self._feed.event(self._seen)
            self._due = asyncio.get_running_loop().time() + self._every_s
            return _event(pieces)
        return None

    def close(self) -> None:
        """Make room for another stream."""
        self._among.discard(self)


def _event(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield b"data: "
    yield from pieces
    yield b"\n\n"
