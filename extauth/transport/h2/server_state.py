"""What the connections of one h2 server share."""

from extauth.transport.engine import EngineContext
from extauth.transport.h2.flow_control import Unfinished
from extauth.transport.h2.health import Health
from extauth.transport.reflection import Reflection


class ServerState:
    """The context of the engine, and what changes while it serves."""

    __slots__ = ("context", "health", "reflection", "stopping", "unfinished")

    def __init__(self, context: EngineContext) -> None:
        self.context = context
        self.health = Health()
        self.reflection = Reflection() if context.reflection else None
        self.unfinished = Unfinished(context.limits.max_unfinished_bytes)
        self.stopping = False  # no new connections are wanted
