"""The way from a replica to a server and back, on which messages are late, lost, or overtake one another."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeVar

from extauth.counters.waiting import in_steps
from extauth.errors import StoreError
from extauth.limiter.counters import Group, Owed, Part, Return, TakeResult
from simulation.loop import VirtualLoop
from simulation.store import Store

TIMEOUT_S = 0.1
FLAKY = 0.3  # of the messages each way that are lost, and of the connections that are refused
HEALTHY_S = (0.0001, 0.0015)  # each way

_T = TypeVar("_T")


_WORLD = Context()


@dataclass
class _Asked:
    """A command that waits for its reply."""

    what: str
    timer: asyncio.TimerHandle = field(init=False)


class Counted(NamedTuple):
    """What the store admitted at an instant, of its clock and of its elapsed time, of calls that take from a counter.

    `name` is the identity of the counter's name, and so says which kind of request of which replica it was.
    """

    name: int
    admitted: int
    at_us: int
    elapsed_us: int


counted: ContextVar[list[Counted]] = ContextVar("counted")
"""What the store admitted of the batch that is being decided, in one part or several."""


class Command(NamedTuple):
    """One of the commands of a message; `work` is done by the store, `sending` when it is sent, undone by `unsent`."""

    what: str
    work: Callable[[], Any]
    sending: Callable[[], None] = lambda: None
    unsent: Callable[[], None] = lambda: None


class Link:
    """`limiter.counters.SharedCounters` of one replica, on one server, over a network with faults.

    A command fails with kind `timeout` once the oldest has waited for TIMEOUT_S, or with `connection` when the store or
    the network ends the connection. A new connection must be answered once before anything else is sent. `process` is
    the replica's context: it learns of nothing while it is stopped. `said` is called with what happens, for the record.
    """

    def __init__(
        self, loop: VirtualLoop, store: Store, random: Random, said: Callable[[str], None], process: Context
    ) -> None:
        self._process = process
        self._connected = False
        self._faults: dict[str, float] = {}  # those that last, with their seconds
        self._closed = False
        self.sent_calls: dict[int, int] = {}  # by id of the plan: how many of its calls were sent
        self.sent_settlements: list[tuple[Sequence[Owed], list[bool]]] = []  # and whether the store added it
        self.receipts: dict[int, tuple[Part, list[Counted]]] = {}  # by id of the Part, of requests over several shards
        self.loop = loop
        self.store = store
        self._random = random
        self._said = said
        self._offset_us = store.now_us() - loop.time_us()
        self._number = 0
        self._pending: dict[asyncio.Future[Any], _Asked] = {}
        self._arrival = self._reply = 0.0

    def now_us(self) -> int:
        """The store's clock as the last reply said."""
        return self.loop.time_us() + self._offset_us

    def elapsed_us(self) -> int:
        """The store's, of which only the oracles know."""
        return self.store.elapsed_us()

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """As Counters say."""
        asked_us = self.loop.time_us()
        (told,) = await self.send([self.taking(groups)], again=True)
        return self.read_take(groups, told, asked_us)

    def taking(self, groups: Sequence[Group]) -> Command:
        """A take, whose reply `read_take` reads."""

        def count() -> tuple[list[TakeResult], int, int]:
            return self.store.take(groups), self.store.now_us(), self.store.elapsed_us()

        def note_sent(sign: int = 1) -> None:
            for take, calls in groups:
                self.sent_calls[id(take)] = self.sent_calls.get(id(take), 0) + sign * calls

        what = "take " + ", ".join(f"{group.calls}x {b'+'.join(group.take.names).decode()}" for group in groups)
        return Command(what, count, note_sent, lambda: note_sent(-1))

    def read_take(
        self, groups: Sequence[Group], told: tuple[list[TakeResult], int, int], asked_us: int
    ) -> list[TakeResult]:
        """The results of a take that was sent at an instant."""
        takens, at_us, elapsed_us = told
        earliest, latest = at_us - self.loop.time_us(), at_us - asked_us
        self._offset_us = min(max(self._offset_us, earliest), latest)
        for (take, _), taken in zip(groups, takens, strict=True):
            noted = [Counted(id(name), taken.admitted, at_us, elapsed_us) for name in take.names]
            if isinstance(take, Part):
                take.taken(at_us)
                self.receipts.setdefault(id(take), (take, []))[1].extend(noted)
            elif counted.get(None) is not None:
                counted.get().extend(noted)
        return takens

    async def connect(self) -> None:
        """As Counters say."""
        if not self._connected:
            try:
                await self._send("connect", lambda: None)
            except StoreError as error:
                error.sent = False
                raise
            self._connected = True

    async def probe(self) -> None:
        """As Counters say."""
        await self._ask("probe", lambda: None)

    async def settle(self, owed: Sequence[Owed]) -> None:
        """As SharedCounters say."""
        await self.send([self.settling(owed)])

    def settling(self, owed: Sequence[Owed]) -> Command:
        """A settlement."""
        added = [False]

        def add() -> None:
            self.store.settle(owed)
            added[0] = True

        what = "settle " + ", ".join(f"{each.name.decode()} {each.numbers}" for each in owed)
        sent = (owed, added)
        return Command(
            what, add, lambda: self.sent_settlements.append(sent), lambda: self.sent_settlements.remove(sent)
        )

    def returning(self, returns: Sequence[Return]) -> Command:
        """Give hits back."""
        what = "give back " + ", ".join(f"{each.hits} of {each.name.decode()} at {each.at_us}" for each in returns)
        return Command(what, lambda: self.store.give_back(returns))

    async def send(self, commands: Sequence[Command], *, again: bool = False) -> list[Any]:
        """The replies to commands that go out in one message; with `again`, once more where the connection dies."""
        what = "; ".join(command.what for command in commands)

        def work() -> list[Any]:
            return [command.work() for command in commands]

        def note_sent() -> None:
            for command in commands:
                command.sending()

        try:
            return await self._ask(what, work, note_sent)
        except StoreError as error:
            if not again or not error.sent or error.kind != "connection":
                raise
        try:
            return await self._ask(f"{what}, again", work)
        except StoreError as error:
            error.sent = True
            raise

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """As counters.heartbeat.Registry describes, without reports."""
        return await self._ask("heartbeat", lambda: self.store.exchange_heartbeats(replica, address, rest))

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """There are none."""
        return [b""] * len(replicas)

    def local_host(self) -> str | None:
        """There is none."""
        return None

    def cut(self, reason: str) -> None:
        """End the connection, and with it all commands that wait, once the process learns of it."""
        self.loop.call_soon(self._fail_all, list(self._pending), "connection", reason, context=self._process)

    def begin(self, kind: str, amount_s: float) -> None:
        """Begin a fault."""
        if kind == "cut":
            self.cut("cut")
        else:
            self._faults[kind] = amount_s

    def end(self, kind: str) -> None:
        """End a fault."""
        self._faults.pop(kind, None)

    def close(self) -> None:
        """The replica is gone."""
        self._closed = True
        self._fail_all(list(self._pending), "connection", "closed")

    def _fail_all(self, replies: list["asyncio.Future[Any]"], kind: str, reason: str) -> None:
        self._connected = False
        for reply in replies:
            if not reply.done():
                reply.set_exception(StoreError(kind, reason))

    async def _ask(self, what: str, work: Callable[[], _T], sending: Callable[[], None] = lambda: None) -> _T:
        await self.connect()
        return await self._send(what, work, sending)

    async def _send(self, what: str, work: Callable[[], _T], sending: Callable[[], None] = lambda: None) -> _T:
        if self._closed or self.store.down or (not self._connected and self._fails("refusal")):
            self._said(f"{what}: refused")
            raise StoreError("connection", "refused", sent=False)
        self._number += 1
        name = f"#{self._number}"
        self._said(f"{name} {what}")
        reply: asyncio.Future[_T] = self.loop.create_future()
        asked = self._pending[reply] = _Asked(what)
        sending()
        if self._fails("lost requests"):
            self._said(f"{name} lost on the way there")
        else:
            self._arrival = self._when(self._arrival, self._faults.get("slow requests", 0.0))
            life = self.store.life
            self.loop.arrive_at(self._arrival, self.store.handle, lambda: self._do(name, life, work, reply), to=_WORLD)
        steps, step_s = in_steps(TIMEOUT_S)
        self._watch(reply, asked, steps, step_s)
        try:
            return await reply
        except StoreError as error:
            self._said(f"{name} failed: {error.kind}")
            raise
        finally:
            asked.timer.cancel()
            del self._pending[reply]

    def _watch(self, reply: "asyncio.Future[Any]", asked: "_Asked", steps: int, step_s: float) -> None:
        """Wait in steps, as extauth does: a stop of the process is one step, however long."""
        if steps:
            asked.timer = self.loop.call_later(step_s, self._watch, reply, asked, steps - 1, step_s)
        elif not reply.done():
            self._said(f"no answer to {asked.what}")
            self._fail_all(list(self._pending), "timeout", f"no answer within {TIMEOUT_S} s")

    def _do(self, name: str, life: int, work: Callable[[], _T], reply: "asyncio.Future[_T]") -> None:
        """At the store."""
        if self.store.down or self.store.life != life:
            return  # the connection is gone
        result = work()
        if "closing" in self._faults:
            self.cut("closed")
        late = " (nobody waits any more)" if reply.done() else ""
        self._said(f"{name} done by the store{late}")
        if self._fails("lost replies"):
            self._said(f"{name} lost on the way back")
            return
        self._reply = self._when(self._reply, self._faults.get("slow replies", 0.0))
        self.loop.arrive_at(self._reply, _deliver, reply, result, to=self._process)

    def _fails(self, kind: str) -> bool:
        return kind in self._faults or ("flaky" in self._faults and self._random.random() < FLAKY)

    def _when(self, previous: float, delay_s: float) -> float:
        """When a message arrives: behind the one before it, unless they overtake one another."""
        at = self.loop.time() + self._random.uniform(*HEALTHY_S) + delay_s
        jitter_s = self._faults.get("disorder")
        return max(at, previous) if jitter_s is None else at + self._random.uniform(0, jitter_s)


def _deliver(reply: "asyncio.Future[_T]", result: _T) -> None:
    if not reply.done():
        reply.set_result(result)
