"""What a server says of itself when it is connected to: whether it is one that counts, and whether it evicts keys.

HELLO needs no right: each user may run it. Servers before Redis 6 do not know it, and are asked for their ROLE. INFO
needs a right (`+info`): whoever lacks it does not learn that a server evicts.
"""

import re
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

_HELLO_AND_INFO = b"*1\r\n$5\r\nHELLO\r\n*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n"
_ROLE = b"*1\r\n$4\r\nROLE\r\n"
_POLICY = re.compile(rb"^maxmemory_policy:([a-z-]{1,40})\r?$", re.MULTILINE)


class Greeting(NamedTuple):
    """What a server said; an empty string where it did not.

    `mode` is standalone, cluster or sentinel, `role` is master or replica, `policy` a maxmemory-policy.
    """

    mode: str = ""
    role: str = ""
    policy: str = ""

    def eviction(self, where: str) -> str:
        """What is wrong where the server evicts keys when it has no memory left; empty where it does not."""
        if self.policy in {"", "noeviction"}:
            return ""
        return (
            f"Redis at {where} has the maxmemory-policy {self.policy}: where its memory is used up it "
            "throws counters away, and their callers begin anew"
        )


async def greet(connection: AbstractConnection) -> Greeting:
    """Ask an open connection's server, one round trip; raises redis-py's errors where the connection fails."""
    await connection.send_packed_command(_HELLO_AND_INFO)
    hello, info = await _reply(connection), await _reply(connection)
    if isinstance(info, AuthenticationError):
        raise info
    policy = _POLICY.search(info)[1].decode() if isinstance(info, bytes) and _POLICY.search(info) else ""  # type: ignore[index]
    if isinstance(hello, list):
        told = dict(zip(hello[::2], hello[1::2], strict=False))
        role = _text(told.get(b"role"))
        return Greeting(_text(told.get(b"mode")), "replica" if role == "slave" else role, policy)
    await connection.send_packed_command(_ROLE)
    role = _text(reply[0]) if isinstance(reply := await _reply(connection), list) and reply else ""
    if role == "sentinel":
        return Greeting("sentinel", "", policy)
    return Greeting("", "replica" if role == "slave" else role, policy)


async def _reply(connection: AbstractConnection) -> Any:  # noqa: ANN401 - whatever Redis replies
    """A reply, or the error that is one; raises where there is none."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except RedisError as error:
        if isinstance(error, ResponseError) or error.status_code is not None:
            return error
        raise


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
