"""What a fuzzed connection goes through: an input, read and written."""

import struct
from enum import IntEnum, auto
from typing import NamedTuple

MAX_STEPS = 24
GREETED = 0x80


class Action(IntEnum):
    """What happens after a piece of the client's bytes."""

    NOTHING = 0
    TURN = auto()  # of the event loop
    HOLD = auto()  # the store does not answer
    RELEASE = auto()
    FAIL = auto()  # the store answers with an error
    BREAK = auto()  # an error of ours
    WAIT = auto()  # three seconds, and a check for what is stalled
    STALL = auto()  # longer than a client may take
    STICK = auto()  # the client reads no more
    UNSTICK = auto()
    DRAIN = auto()
    HANG_UP = auto()
    CUT = auto()


class Step(NamedTuple):
    """The client sends so many bytes, then something happens."""

    action: Action
    size: int


class Script(NamedTuple):
    """An input, read."""

    greeted: bool
    steps: list[Step]
    sent: bytes

    @classmethod
    def read(cls, data: bytes) -> "Script":
        """Any bytes are one."""
        head = data[0] if data else 0
        steps = min(head & ~GREETED, MAX_STEPS, (len(data) - 1) // 3)
        read = [struct.unpack_from(">BH", data, 1 + 3 * n) for n in range(steps)]
        steps_read = [Step(Action(action % len(Action)), size) for action, size in read]
        return cls(bool(head & GREETED), steps_read, data[1 + 3 * max(steps, 0) :])

    def write(self) -> bytes:
        """The input again."""
        steps = self.steps[:MAX_STEPS]
        head = bytes(((GREETED if self.greeted else 0) | len(steps),))
        return head + b"".join(struct.pack(">BH", action, size & 0xFFFF) for action, size in steps) + self.sent
