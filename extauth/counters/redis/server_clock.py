"""The clock of a server, as far as its replies tell."""

import time


class ServerClock:
    """Microseconds of a server's clock; before it has told its time, of this machine's."""

    __slots__ = ("_offset_us",)

    def __init__(self) -> None:
        self._offset_us = 0  # from the monotonic clock

    def note(self, told: int, asked_us: int, answered_us: int) -> None:
        """Note what it told between these two instants of the monotonic clock: a slow reply must not set it back."""
        self._offset_us = min(max(self._offset_us, told - answered_us), told - asked_us)

    def now_us(self) -> int:
        """Now, by the last reply and the time of this process since."""
        return time.monotonic_ns() // 1000 + self._offset_us if self._offset_us else time.time_ns() // 1000
