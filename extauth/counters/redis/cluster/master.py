"""One master of a cluster: its connection, its clock, and the runs that it is sent."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from extauth.counters.redis.cluster.node import ClusterNode
from extauth.counters.redis.cluster.runs import Run
from extauth.counters.redis.connection import ELSEWHERE, RedisConnection
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.protocol import ReplyError
from extauth.counters.redis.scripts import command
from extauth.counters.redis.server import REFUSALS, Address
from extauth.counters.redis.server_clock import ServerClock
from extauth.errors import StoreError

_ASKING: Final = command(b"ASKING")
_REFUSALS: Final = REFUSALS | {
    "CLUSTERDOWN": "says that its cluster is down",
    "CROSSSLOT": "was sent counters of several slots",
    "MOVED": "and other nodes of its cluster send calls to one another",
    "ASK": "and other nodes of its cluster send calls to one another",
    "TRYAGAIN": "is moving a slot whose counters are in two places",
}


class MasterOptions(NamedTuple):
    """What the masters of a cluster have in common.

    `timeout_s` and `greeted` are as those of RedisConnection. `clock` replaces the masters' own where time must be
    controlled. `rights` are those that the commands need, for messages.
    """

    timeout_s: float
    greeted: Callable[[str, Greeting], None]
    clock: Callable[[], int] | None
    rights: str


class Master:
    """The master at an address."""

    def __init__(self, node: ClusterNode, options: MasterOptions) -> None:
        self.address: Address = node.address
        self.pipe = RedisConnection(node, options.timeout_s, options.greeted)
        self.server_clock = ServerClock()
        self._clock = options.clock
        self._rights = options.rights

    async def send(self, runs: Sequence[Run], *, asking: bool = False) -> list[Sequence[Any] | ReplyError]:
        """Send the runs in one write; returns the results of each, or its error reply. Raises StoreError.

        With `asking`, they are for keys of slots that are moving to this master.
        """
        asked_us = time.monotonic_ns() // 1000
        replies = await self._replies(runs, asking=asking)
        told_us = time.monotonic_ns() // 1000
        return [
            reply if isinstance(reply, ReplyError) else self._read(run, reply, asked_us, told_us)
            for run, reply in zip(runs, replies, strict=True)
        ]

    def refused(self, error: ReplyError) -> StoreError:
        """What is wrong, of an error reply that redirects nowhere."""
        if error.code in ELSEWHERE and error.code != "CLUSTERDOWN":
            self.pipe.drop("another may have taken its place")
        reply = str(error).partition("\n")[0][:200]
        what = _REFUSALS.get(error.code, "refused") + (f" ({self._rights})" if error.code == "NOPERM" else "")
        sent = error.code != "CLUSTERDOWN"  # which is said before anything is run
        return StoreError("reply", f"Redis at {self.address} {what}: {reply}", sent=sent)

    def now(self) -> bytes:
        """The time for scripts: empty where the server's own clock counts."""
        return b"" if self._clock is None else b"%d" % self._clock()

    async def _replies(self, runs: Sequence[Run], *, asking: bool) -> list[Any]:
        now = self.now()
        packed = [run.pack(now) for run in runs]
        again = all(run.again for run in runs)
        commands = [
            head + run.script.evalsha + body if run.script is not None else head
            for run, (head, body) in zip(runs, packed, strict=True)
        ]
        replies = await self._execute(commands, again=again, asking=asking)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, ReplyError) and reply.code == "NOSCRIPT"]
        if missing:
            # Flushed, or another server: the first of each loads it, too.
            loaded = set()
            for i in missing:
                script = runs[i].script
                assert script is not None  # noqa: S101 - or there would be no such reply
                if script not in loaded:
                    commands[i] = packed[i][0] + script.eval + packed[i][1]
                loaded.add(script)
            later = await self._execute([commands[i] for i in missing], again=again, asking=asking)
            for i, reply in zip(missing, later, strict=True):
                replies[i] = reply
        return replies

    async def _execute(self, commands: Sequence[bytes], *, again: bool, asking: bool) -> list[Any]:
        if not asking:
            return await self.pipe.execute_all(commands, again=again)
        both = [each for packed in commands for each in (_ASKING, packed)]
        return (await self.pipe.execute_all(both, again=again))[1::2]

    def _read(self, run: Run, reply: Any, asked_us: int, told_us: int) -> Sequence[Any]:  # noqa: ANN401
        try:
            results = run.read(reply)
            if run.timed:
                self.server_clock.note(reply[1], asked_us, told_us)
        except (TypeError, ValueError, IndexError):
            raise self.pipe.drop_senseless() from None
        return results
