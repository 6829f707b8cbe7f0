"""The memory that incomplete messages and header blocks may hold, on all connections together.

A stream begins with a window of DEFAULT_WINDOW bytes, which hold nearly every message whole. A longer message gets
the rest of its window at once, reserved here, or waits for it in the order in which messages ask. With half of the
memory in use, only the one that has waited longest goes on, so that one always finishes and makes room for the
next: the other half is for the beginnings of messages. Past the limit, the newest message of the connection that
holds most is given up, until the rest fits.
"""

from typing import Final, Protocol

LARGEST_WINDOW: Final = 1_048_576  # of a connection, in bytes


class Holder(Protocol):
    """A connection that holds unfinished messages and header blocks."""

    def grant(self, number: int, window: int) -> None:
        """Let the client send `window` more bytes on the stream."""
        ...

    def drop_newest(self, spare: "Message | None") -> None:
        """End the newest unfinished message, other than `spare`; if there is none, the header block."""
        ...


class Message(Protocol):
    """An incomplete message: `charged` bytes are reserved for it, and it waits for `wanted` more."""

    number: int
    charged: int
    wanted: int

    @property
    def owner(self) -> Holder:
        """The connection that it came on."""
        ...


class Unfinished:
    """Reserves at most `limit` bytes, plus what one message needs: the one that goes on though there is no room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Holder, int] = {}
        self._used = 0
        self._queue: dict[Message, None] = {}
        self._exempt: Message | None = None

    @property
    def used(self) -> int:
        """Bytes reserved."""
        return self._used

    def room_to_grow(self) -> bool:
        """Whether a connection may have its largest window."""
        return self._used + LARGEST_WINDOW <= self._limit // 2

    def charge(self, holder: Holder, message: Message | None, size: int) -> None:
        """Reserve memory for bytes of a message, or else of a header block; give up other messages if there is none."""
        self._reserve(holder, message, size)
        while self._used - self._excess() > self._limit and self._held:
            max(self._held, key=self._weight).drop_newest(self._exempt)

    def ask(self, message: Message, size: int) -> None:
        """Grant the message the window for its rest, or have it wait."""
        message.wanted = size
        self._queue[message] = None
        self._serve()

    def release(self, holder: Holder, message: Message | None, size: int) -> None:
        """Free what was reserved: the message is whole or given up, or the header block is decoded."""
        if message is not None:
            self._queue.pop(message, None)
            size, message.charged = message.charged, 0
            if message is self._exempt:
                self._exempt = None
        self._used -= size
        left = self._held.get(holder, 0) - size
        if left:
            self._held[holder] = left
        else:
            self._held.pop(holder, None)
        if self._queue:
            self._serve()

    def _reserve(self, holder: Holder, message: Message | None, size: int) -> None:
        self._used += size
        self._held[holder] = self._held.get(holder, 0) + size
        if message is not None:
            message.charged += size

    def _weight(self, holder: Holder) -> int:
        exempt = self._exempt
        return self._held[holder] - (exempt.charged if exempt is not None and exempt.owner is holder else 0)

    def _excess(self) -> int:
        return 0 if self._exempt is None else self._exempt.charged

    def _serve(self) -> None:
        while self._queue:
            message = next(iter(self._queue))
            size = message.wanted
            if self._used + size > self._limit // 2:
                if self._exempt is not None:
                    return
                self._exempt = message
            del self._queue[message]
            self._reserve(message.owner, message, size)
            message.owner.grant(message.number, size)
