"""Bodies of calls: large ones, compressed ones, and a client that sends them as far as the windows allow."""

import zlib

from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from tests.support.h2_peer import BLOCK, MESSAGE, Answer, Peer


def gzipped(message: bytes) -> bytes:
    return zlib.compress(message, wbits=31)


def large(size: int) -> bytes:
    """A good message of so many bytes: what it holds besides is unknown."""
    rest = size - len(MESSAGE) - 5
    lengths = (rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14 & 0x7F | 0x80, rest >> 21)
    return MESSAGE + bytes((0x4A, *lengths)) + bytes(rest)


def data(stream: int, body: bytes, *, end: bool = True) -> list[bytes]:
    """A body in frames."""
    parts = [body[i : i + 16_384] for i in range(0, len(body), 16_384)]
    return [frame(DATA, END_STREAM if end and i == len(parts) - 1 else 0, stream, p) for i, p in enumerate(parts)]


class Sending:
    """A client that sends bodies as far as the windows allow."""

    def __init__(self, peer: Peer, bodies: dict[int, bytes]) -> None:
        self.peer = peer
        self.left = dict(bodies)
        self.windows = dict.fromkeys(bodies, 65_535)
        self.window = 65_535
        self._read = 0
        peer.send(*(frame(HEADERS, END_HEADERS, stream, BLOCK) for stream in bodies))

    def go_on(self) -> None:
        """Send what the windows that were granted allow."""
        for kind, _, stream, payload in self.peer.frames[self._read :]:
            if kind == frames.WINDOW_UPDATE and stream:
                self.windows[stream] += int.from_bytes(payload, "big")
            elif kind == frames.WINDOW_UPDATE:
                self.window += int.from_bytes(payload, "big")
        self._read = len(self.peer.frames)
        while self._send():
            pass

    def _send(self) -> bool:
        """A frame a stream; whether there was any."""
        sent = False
        for stream, left in list(self.left.items()):
            size = min(len(left), self.windows[stream], self.window, 16_384)
            if size and stream not in self.peer.answers:
                sent = True
                self.left[stream] = left[size:]
                self.windows[stream] -= size
                self.window -= size
                self.peer.send(frame(DATA, 0 if left[size:] else END_STREAM, stream, left[:size]))
                if not left[size:]:
                    del self.left[stream]
        return sent

    async def until_answered(self) -> list[Answer]:
        """Go on until each has its answer."""
        streams = list(self.windows)

        def done() -> bool:
            self.go_on()
            return all(self.peer.answers.get(stream, Answer()).ended for stream in streams)

        await self.peer.until(done)
        return [self.peer.answers[stream] for stream in streams]
