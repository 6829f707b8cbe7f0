"""What a connection is given in place of a network and a clock, and what it may write there."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator

from extauth.transport.h2 import frames
from extauth.transport.h2.frames import DATA, END_STREAM, HEAD, HEADERS, PREFACE, ErrorCode

HIGH_WATER = 300  # bytes unread by the client that pause writing: few, so that small inputs reach it


class Time:
    """Passes only when told to; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """As `time.perf_counter`."""
        return self.now

    def us(self) -> int:
        """Whole microseconds."""
        return int(self.now * 1e6)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by `clock`. It must always have something to do, or it would sleep."""

    def __init__(self, clock: Time) -> None:
        super().__init__()
        self._fuzzed_clock = clock

    def time(self) -> float:
        """The time of `call_later`."""
        return self._fuzzed_clock()


class Wire(asyncio.Transport):
    """A transport as asyncio's: it buffers while the client is `stuck`, and says so past the high-water mark."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: asyncio.Protocol | None = None
        self._inbox: list[bytes] = []
        self._unread = 0
        self._stuck = self._paused = self._reading_paused = False
        self._closing = self._ended = False
        self.lost = False
        self.written = bytearray()

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Connect."""
        self._protocol = protocol
        protocol.connection_made(self)

    # The client's side

    def deliver(self, data: bytes) -> None:
        """Bytes from the client: they wait while reading is paused."""
        self._inbox.append(data)
        while self._inbox and not self._reading_paused and not self._closing and self._protocol is not None:
            self._protocol.data_received(self._inbox.pop(0))

    def stick(self) -> None:
        """The client reads no more."""
        self._stuck = True

    def unstick(self) -> None:
        """It reads on."""
        self._stuck, self._unread = False, 0
        if self._paused and self._protocol is not None:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing:
            self._lose()
        self.deliver(b"")

    def hang_up(self) -> None:
        """The client ends its half."""
        if not self._closing and self._protocol is not None and not self._protocol.eof_received():
            self.close()

    def cut(self, exc: Exception | None = None) -> None:
        """The connection is gone."""
        self._closing = True
        self._lose(exc)

    def _lose(self, exc: Exception | None = None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self.lost = True
            self._loop.call_soon(protocol.connection_lost, exc)

    # The server's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As asyncio's."""
        assert not self._ended, "written after the end"
        if self.lost:
            return
        self.written += data
        if self._stuck:
            self._unread += len(data)
            if self._unread > HIGH_WATER and not self._paused and self._protocol is not None:
                self._paused = True
                self._protocol.pause_writing()

    def pause_reading(self) -> None:
        """As asyncio's."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """As asyncio's."""
        self._reading_paused = False
        self._loop.call_soon(self.deliver, b"")

    def is_closing(self) -> bool:
        """As asyncio's."""
        return self._closing

    def can_write_eof(self) -> bool:
        """As asyncio's."""
        return True

    def write_eof(self) -> None:
        """As asyncio's; uvloop's raises where the connection is gone."""
        assert not self.lost, "the end of what is lost"
        self._ended = True

    def abort(self) -> None:
        """As asyncio's."""
        self.cut()

    def close(self) -> None:
        """As asyncio's: what is buffered goes first."""
        self._closing = True
        if not (self._stuck and self._unread):
            self._lose()


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The whole frames that stand at the beginning: (type, flags, stream, payload)."""
    at = 0
    while at + HEAD.size <= len(data):
        high, low, kind, flags, stream = HEAD.unpack_from(data, at)
        end = at + HEAD.size + (high << 8 | low)
        if end > len(data):
            return
        yield kind, flags, stream, data[at + HEAD.size : end]
        at = end


class _Granted:
    """The most that the client's frames may have granted by the end, whatever order they are handled in."""

    def __init__(self, sent: bytes) -> None:
        self.connection = frames.DEFAULT_WINDOW
        self.initial, self.frame = frames.DEFAULT_WINDOW, frames.MIN_MAX_FRAME_SIZE
        self.streams: defaultdict[int, int] = defaultdict(int)
        self.last = 0
        for kind, _, reserved, payload in split(sent.removeprefix(PREFACE)):
            stream = reserved & frames.MAX_STREAM_ID
            if kind == frames.WINDOW_UPDATE:
                increment = int.from_bytes(payload[:4], "big") & frames.MAX_WINDOW
                if stream:
                    self.streams[stream] += increment
                else:
                    self.connection += increment
            elif kind == HEADERS:
                self.last = max(self.last, stream)
            elif kind == frames.SETTINGS:
                for name, value in frames.SETTING.iter_unpack(payload[: len(payload) // 6 * 6]):
                    if name == frames.SETTINGS_INITIAL_WINDOW_SIZE:
                        self.initial = max(self.initial, value)
                    elif name == frames.SETTINGS_MAX_FRAME_SIZE:
                        self.frame = max(self.frame, value)


def check_written(sent: bytes, written: bytes) -> None:
    """What we write is HTTP/2 within the client's windows; raises AssertionError."""
    granted = _Granted(sent)
    heard: dict[int, int] = {}  # stream → bytes of DATA, of those whose headers were sent
    ended: set[int] = set()
    last_answered, last_code = frames.MAX_STREAM_ID, int(ErrorCode.NO_ERROR)
    at = 0
    for number, (kind, flags, stream, payload) in enumerate(split(written)):
        at += HEAD.size + len(payload)
        if last_code != ErrorCode.NO_ERROR:
            answers = kind in (HEADERS, DATA) and stream <= last_answered
            assert answers or kind == frames.RST_STREAM, "after GOAWAY with an error, a frame that is of no answer"
        assert (number == 0) == (kind == frames.SETTINGS and not flags), "our SETTINGS come first, and once"
        assert len(payload) <= granted.frame, "a frame larger than the client takes"
        if kind in (HEADERS, DATA, frames.RST_STREAM):
            assert 0 < stream <= granted.last, "a stream that the client did not open"
        if kind == HEADERS:
            assert stream not in ended, "HEADERS after the end"
            assert stream not in heard or flags & END_STREAM, "trailers that do not end the stream"
            heard.setdefault(stream, 0)
        elif kind == DATA:
            assert stream in heard and stream not in ended, "DATA out of place"
            heard[stream] += len(payload)
            assert heard[stream] <= granted.initial + granted.streams[stream], "more DATA than the stream's window"
        elif kind == frames.WINDOW_UPDATE:
            assert 0 < int.from_bytes(payload, "big") <= frames.MAX_WINDOW, "WINDOW_UPDATE out of bounds"
            assert stream not in ended, "WINDOW_UPDATE after the end"
        elif kind == frames.GOAWAY:
            last_answered, last_code = (int.from_bytes(payload[i : i + 4], "big") for i in (0, 4))
        else:
            assert kind in (frames.SETTINGS, frames.PING, frames.RST_STREAM), "a frame that no server sends"
        if kind == frames.RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
            ended.add(stream)
    assert at == len(written), "a frame that is cut off"
    assert sum(heard.values()) <= granted.connection, "more DATA than the connection's window"
