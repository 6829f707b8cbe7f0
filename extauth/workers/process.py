"""A worker's process, as its parent has it."""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from extauth.counters.heartbeat import worker_name
from extauth.transport.handover import hand_over
from extauth.workers.channel import Channel, Message

ENDING_S: Final = 2.0

Part = Callable[[Any], None]
"""Takes a part of an answer."""


class WorkerProcess:
    """The process of the worker `number`.

    `rules` is the digest of the rules that it has in force, `state` what it said of itself last, `calls_a_second` what
    it decided lately, and `ready` is set while it takes calls.
    """

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, channel: Channel, handed: socket.socket
    ) -> None:
        self.number = number
        self.pid = process.pid
        self.began_s = monotonic()
        self.ready = asyncio.Event()
        self.rules = ""
        self._rules_sent = self._rules_taken = 0  # sets of them
        self._sending_rules = asyncio.Lock()
        self._took_rules = asyncio.Event()
        self.state: Mapping[str, Any] = {}
        self.calls_a_second = 0
        self._gone = False
        self._process = process
        self._channel = channel
        self._handed_channel = handed
        self._handed = 0  # connections, ever
        self._received = self._open = 0  # of these, as the worker counts
        self._decided = 0
        self._noted_s = monotonic()
        self._late_since = 0.0
        self._asked = 0
        self._answers: dict[int, tuple[Part, asyncio.Future[Any]]] = {}

    @classmethod
    async def start(cls, number: int, workers: int, replica: str, environ: Mapping[str, str]) -> "WorkerProcess":
        """Start the process; raises OSError if that is not possible."""
        ours, theirs = socket.socketpair()
        handed, handed_theirs = socket.socketpair()
        with theirs, handed_theirs:
            descriptors = (theirs.fileno(), handed_theirs.fileno())
            arguments = [*descriptors, number, workers, worker_name(replica, number)]
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "extauth.workers",
                    *map(str, arguments),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=dict(environ),
                    pass_fds=descriptors,
                    start_new_session=True,  # a terminal's signals are for the parent, which ends its workers
                )
            except OSError:
                ours.close()
                handed.close()
                raise
        handed.setblocking(False)
        return cls(number, process, await Channel.over(ours), handed)

    @property
    def load(self) -> tuple[int, int, int]:
        """As Taker.load."""
        return self._handed - self._received + self._open, self.calls_a_second, self._handed

    def take(self, connection: socket.socket) -> bool:
        """As Taker.take."""
        taken = hand_over(self._handed_channel, connection)
        self._handed += taken
        return taken

    async def send_rules(self, packed: Callable[[], Awaitable[Iterable[Sequence[bytes]]]]) -> None:
        """Send rules to be put in force; raises OSError if the process is gone.

        One set is sent after the other: pieces of two would be read as one. `packed` gives the pieces, packed whole,
        in parts that are quick to send, once it is their turn, so that whoever asks it for the newest rules sends none
        that are older than the last.
        """
        async with self._sending_rules:
            parts = await packed()
            self._rules_sent += 1
            for part in parts:
                self._channel.send("pieces", part)
                await self._channel.drain()
                await asyncio.sleep(0)  # where the worker reads as quickly, there is nothing to drain
            self._channel.send("rules")
            await self._channel.drain()

    async def until_rules_taken(self) -> None:
        """Return once all rules that were sent before have been in force, or the process is gone."""
        sent = self._rules_sent
        while self._rules_taken < sent and not self._gone:
            self._took_rules.clear()
            await self._took_rules.wait()

    def tell(self, what: str) -> None:
        """Have it `drain`, `stop`, or load its certificates again (`tls`)."""
        self._channel.send(what)

    def ask(self, what: str, *arguments: Any, part: Part = lambda _: None) -> asyncio.Future[Any]:  # noqa: ANN401
        """Ask something; `part` gets each part of the answer, and the result is the last one.

        The future is cancelled if the process ends before.
        """
        self._asked += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._asked] = part, answer
        self._channel.send("ask", self._asked, what, *arguments)
        return answer

    def note(self, state: Mapping[str, Any] | None) -> None:
        """Note what it says of itself, or that it has not answered."""
        now_s = monotonic()
        if state is None:
            self._late_since = self._late_since or now_s
            return
        self._late_since = 0.0
        self.calls_a_second = round((state["decided"] - self._decided) / max(now_s - self._noted_s, 0.1))
        self._decided, self._noted_s = state["decided"], now_s
        self.state = state

    @property
    def late_s(self) -> float:
        """For how many seconds it has answered nothing; 0 while it does."""
        return max(monotonic() - self._late_since, 1e-6) if self._late_since else 0.0

    async def run(self) -> int:
        """Hear what it says until its process has ended; returns the exit code, or the signal below zero."""
        try:
            while True:
                self._hear(await self._channel.receive())
        except EOFError:
            pass
        finally:
            self._gone = True
            self._took_rules.set()
            self.ready.clear()
            self._channel.close()
            self._handed_channel.close()
            for _, answer in self._answers.values():
                answer.cancel()
            self._answers.clear()
        with suppress(TimeoutError):  # it has closed its end, and so it is ending
            return await asyncio.wait_for(self._process.wait(), ENDING_S)
        self.kill()
        return await self._process.wait()

    def kill(self) -> None:
        """End the process at once."""
        self.ready.clear()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def _hear(self, message: Message) -> None:
        match message:
            case "part", int(number), part:
                self._answers[number][0](part)
            case "done", int(number), last:
                self._late_since = 0.0  # slow as it may be, it does not hang
                _, answer = self._answers.pop(number)
                if not answer.done():
                    answer.set_result(last)
            case "open", int(received), int(open_now):
                self._received, self._open = received, open_now
            case "rules", str(digest):
                self.rules = digest
                self._rules_taken += 1
                self._took_rules.set()
            case ("ready",):
                self.ready.set()


def how_it_ended(code: int) -> dict[str, str | int]:
    """What the log says of an exit code or, below zero, a signal."""
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"signal": -code}
