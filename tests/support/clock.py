"""Time under the test's control."""

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOON = 1_700_049_600 * SECOND  # 2023-11-15 12:00:00 UTC: the start of a second, minute and hour


class Clock:
    """Microseconds since the epoch, which pass only when told to."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def sleep(self, duration_us: int) -> None:
        self.now += duration_us


class Seconds:
    """A clock of the transport's, which stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
