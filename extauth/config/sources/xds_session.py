"""What is known of one stream of an xDS server."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extauth.config.sources.xds_stream import XdsStream


class Session:
    """A stream, what came last on it and was not built yet, and what was refused on it, by its digest."""

    def __init__(self, stream: "XdsStream") -> None:
        self.stream = stream
        self.newest: bytes | None = None
        self.refused: set[bytes] = set()
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answered = b""
        self.answered_at = 0.0
        self.repeats = 0
        """How often in a row the same came again at once."""

    def fail(self, reason: str) -> None:
        """Note why the stream is to end, if nothing else was noted before."""
        if not self.failed.done():
            self.failed.set_result(reason)
