"""Header blocks of several frames."""


class HeaderBlock:
    """A header block that goes on in CONTINUATION frames."""

    __slots__ = ("arrived", "depends_on_itself", "end_stream", "fragments", "frames", "stream")

    def __init__(self, stream: int, arrived: float, *, end_stream: bool, depends_on_itself: bool) -> None:
        self.stream = stream
        self.fragments = bytearray()
        self.arrived = arrived
        self.end_stream = end_stream
        self.depends_on_itself = depends_on_itself
        self.frames = 0
