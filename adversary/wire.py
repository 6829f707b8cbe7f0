"""What hostile clients are made of: calls in frames, and connections whose answers are judged."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from extauth.rls.protobuf import bytes_field
from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_STREAM, HEADERS, PREFACE
from tests.support.calls import descriptor

HOSTILE_KEY = "hostile-tier-key"  # one request a day, which is used up before
OPEN_KEY = "open-tier-key"  # an honest caller's, with room
READ_BYTES = 1 << 16
OPEN_CALLS = 500  # of a judged client on a connection; extauth allows 1024, and gives those past it the failure policy
OVER_LIMIT = b"\x08\x02"  # RateLimitResponse: overall_code, field 1, is OVER_LIMIT


@dataclass
class Target:
    """Where a client may send to, until when, and what it did."""

    edge: int
    replica: int
    admin: int
    seconds: float
    sent: int = 0
    answered: int = 0
    passed: int = 0
    errors: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    def left_s(self) -> float:
        """For how long it may go on."""
        return max(self.until - time.monotonic(), 0)

    def over(self) -> bool:
        """Whether it is to stop."""
        return not self.left_s()


def message(*parts: bytes) -> bytes:
    """A RateLimitRequest of the hostile caller, which is denied."""
    return bytes_field(1, b"api") + descriptor(("api_key", HOSTILE_KEY)) + b"".join(parts)


class Connection:
    """A connection that is written to as fast as its peer reads.

    With a target what comes back is judged: a call whose stream ends without a message that begins with
    `overall_code: OVER_LIMIT` (RateLimitResponse, field 1) passed. Without one it is read and dropped.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target | None = None
    ) -> None:
        self._reader, self._writer, self._target = reader, writer, target
        self._rest = b""
        self._heads: dict[int, bytes] = {}  # of answers: the 5 bytes of gRPC's prefix, and overall_code
        self._ended: set[int] = set()
        self._window = frames.DEFAULT_WINDOW
        self._window_grew = asyncio.Event()
        self._call_ended = asyncio.Event()
        self._drain = asyncio.create_task(self._read())

    @classmethod
    async def to(cls, port: int, target: Target | None = None) -> "Connection":
        """Connect, and greet."""
        connection = cls(*await asyncio.open_connection("127.0.0.1", port), target)
        connection._writer.write(PREFACE + frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}))
        return connection

    async def take_window(self, size: int, seconds: float) -> bool:
        """Take so much of the connection's window (RFC 9113 §5.2); False where it does not come in this time."""
        try:
            async with asyncio.timeout(seconds):
                while self._window < size:
                    self._window_grew.clear()
                    await self._window_grew.wait()
        except TimeoutError:
            return False
        self._window -= size
        return True

    async def fewer_open_than(self, calls: int, opened: int, seconds: float) -> None:
        """Wait for answers while as many of the `opened` calls have none. Raises OSError where the peer hung up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while opened - len(self._ended) >= calls:
                    if self._drain.done():
                        raise ConnectionResetError
                    self._call_ended.clear()
                    await self._call_ended.wait()

    async def send(self, data: bytes) -> None:
        """Send, and wait while more than a little is unsent."""
        self._writer.write(data)
        await asyncio.wait_for(self._writer.drain(), 5)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        self._drain.cancel()
        await asyncio.gather(self._drain, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(READ_BYTES):
                if self._target is not None:
                    self._judge(self._target, data)
                window = frames.window_update(0, len(data))
                if not self._writer.is_closing():
                    self._writer.write(window)
        finally:
            asyncio.get_running_loop().call_soon(self._call_ended.set)  # once this task is done

    def _judge(self, target: Target, data: bytes) -> None:
        data, at = self._rest + data, 0
        while len(data) - at >= frames.HEAD.size:
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            begin = at + frames.HEAD.size
            end = begin + (high << 8 | low)
            if end > len(data):
                break
            if kind == DATA:  # an answer is split where the window ends
                self._heads[stream] = (self._heads.get(stream, b"") + data[begin:end])[:7]
            elif kind == frames.WINDOW_UPDATE and stream == 0:
                self._window += int.from_bytes(data[begin:end], "big")
                self._window_grew.set()
            ends = kind == frames.RST_STREAM or (kind in {DATA, HEADERS} and flags & END_STREAM)
            if ends and stream not in self._ended:  # an answer before the request's end is followed by RST_STREAM
                target.answered += 1
                target.passed += self._heads.pop(stream, b"")[5:] != OVER_LIMIT
                self._ended.add(stream)
                self._call_ended.set()
            at = end
        self._rest = data[at:]


async def repeat(
    target: Target, port: int, make: Callable[[int], bytes], *, per_connection: int = 1 << 20, judged: bool = True
) -> None:
    """Send what `make` gives for each odd stream, on one connection after the other, until time is over.

    Judged, each is one call, and they keep within the streams that may be open.
    """
    while not target.over():
        try:
            connection = await Connection.to(port, target if judged else None)
            for stream in range(1, 2 * per_connection, 2):
                if judged:
                    await connection.fewer_open_than(OPEN_CALLS, stream // 2, target.left_s())
                await connection.send(make(stream))
                target.sent += 1
                if target.over():
                    break
                await asyncio.sleep(0)
            await connection.close()
        except (OSError, TimeoutError):
            target.errors += 1
            await asyncio.sleep(0.01)


async def http1(target: Target, extra: bytes = b"", path: str = "/", *, at_once: int = 8) -> None:
    """GETs of the hostile caller over HTTP/1.1, whose answers count: all must be denials."""

    async def ask() -> None:
        request = f"GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {HOSTILE_KEY}\r\n".encode() + extra + b"\r\n"
        while not target.over():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", target.edge)
                while not target.over():
                    writer.write(request)
                    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                    target.sent += 1
                    target.answered += 1
                    target.passed += b" 429 " not in answer.split(b"\r\n", 1)[0]
                    lengths = [
                        line[15:] for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")
                    ]
                    await reader.readexactly(int(lengths[0]) if lengths else 0)
                writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                target.errors += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(ask() for _ in range(at_once)))
