"""The way from a replica to the store and back, on which messages are late, lost, or overtake one another."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeVar

from extauth.counters.waiting import in_steps
from extauth.errors import StoreError
from extauth.limiter.counters import Group, Owed, TakeResult
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
    """What the store admitted of a group: the plan's id, the calls, and the store's clock and elapsed time then."""

    plan: int
    admitted: int
    at_us: int
    elapsed_us: int


counted: ContextVar[list[Counted]] = ContextVar("counted")
"""What the store admitted of the batch that is being decided, in one part or several."""


class Link:
    """`limiter.counters.SharedCounters` of one replica, over a network with faults.

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
        self._loop = loop
        self._store = store
        self._random = random
        self._said = said
        self._offset_us = store.now_us() - loop.time_us()
        self._number = 0
        self._pending: dict[asyncio.Future[Any], _Asked] = {}
        self._arrival = self._reply = 0.0

    def now_us(self) -> int:
        """The store's clock as the last reply said."""
        return self._loop.time_us() + self._offset_us

    def elapsed_us(self) -> int:
        """The store's, of which only the oracles know."""
        return self._store.elapsed_us()

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """As Counters say."""

        def count() -> tuple[list[TakeResult], int, int]:
            return self._store.take(groups), self._store.now_us(), self._store.elapsed_us()

        def note_sent() -> None:
            for take, calls in groups:
                self.sent_calls[id(take)] = self.sent_calls.get(id(take), 0) + calls

        what = "take " + ", ".join(f"{group.calls}x {b'+'.join(group.take.names).decode()}" for group in groups)
        asked_us = self._loop.time_us()
        takens, at_us, elapsed_us = await self._ask(what, count, note_sent)
        earliest, latest = at_us - self._loop.time_us(), at_us - asked_us
        self._offset_us = min(max(self._offset_us, earliest), latest)
        for group, taken in zip(groups, takens, strict=True):
            counted.get().append(Counted(id(group.take), taken.admitted, at_us, elapsed_us))
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
        added = [False]

        def add() -> None:
            self._store.settle(owed)
            added[0] = True

        what = "settle " + ", ".join(f"{each.name.decode()} {each.numbers}" for each in owed)
        await self._ask(what, add, lambda: self.sent_settlements.append((owed, added)))

    async def exchange_heartbeats(self, replica: str, address: str, rest: str, report: bytes = b"") -> bytes:
        """As counters.heartbeat.Registry describes, without reports."""
        return await self._ask("heartbeat", lambda: self._store.exchange_heartbeats(replica, address, rest))

    async def read_reports(self, replicas: Sequence[str]) -> list[bytes]:
        """There are none."""
        return [b""] * len(replicas)

    def local_host(self) -> str | None:
        """There is none."""
        return None

    def cut(self, reason: str) -> None:
        """End the connection, and with it all commands that wait, once the process learns of it."""
        self._loop.call_soon(self._fail_all, list(self._pending), "connection", reason, context=self._process)

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
        if self._closed or self._store.down or (not self._connected and self._fails("refusal")):
            self._said(f"{what}: refused")
            raise StoreError("connection", "refused", sent=False)
        self._number += 1
        name = f"#{self._number}"
        self._said(f"{name} {what}")
        reply: asyncio.Future[_T] = self._loop.create_future()
        asked = self._pending[reply] = _Asked(what)
        sending()
        if self._fails("lost requests"):
            self._said(f"{name} lost on the way there")
        else:
            self._arrival = self._when(self._arrival, self._faults.get("slow requests", 0.0))
            life = self._store.life
            self._loop.arrive_at(
                self._arrival, self._store.handle, lambda: self._do(name, life, work, reply), to=_WORLD
            )
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
            asked.timer = self._loop.call_later(step_s, self._watch, reply, asked, steps - 1, step_s)
        elif not reply.done():
            self._said(f"no answer to {asked.what}")
            self._fail_all(list(self._pending), "timeout", f"no answer within {TIMEOUT_S} s")

    def _do(self, name: str, life: int, work: Callable[[], _T], reply: "asyncio.Future[_T]") -> None:
        """At the store."""
        if self._store.down or self._store.life != life:
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
        self._loop.arrive_at(self._reply, _deliver, reply, result, to=self._process)

    def _fails(self, kind: str) -> bool:
        return kind in self._faults or ("flaky" in self._faults and self._random.random() < FLAKY)

    def _when(self, previous: float, delay_s: float) -> float:
        """When a message arrives: behind the one before it, unless they overtake one another."""
        at = self._loop.time() + self._random.uniform(*HEALTHY_S) + delay_s
        jitter_s = self._faults.get("disorder")
        return max(at, previous) if jitter_s is None else at + self._random.uniform(0, jitter_s)


def _deliver(reply: "asyncio.Future[_T]", result: _T) -> None:
    if not reply.done():
        reply.set_result(result)
