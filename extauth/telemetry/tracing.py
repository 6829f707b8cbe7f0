"""Spans of the calls whose traces are recorded: what is kept of each decision, until a thread of its own sends it.

The event loop only appends to a queue that is bounded. Where more calls are sampled than can be sent, or where nobody
receives them, the newest are dropped: a decision never waits for its trace.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import NamedTuple, Protocol

from extauth.limiter.counters import Source, Uncounted
from extauth.limiter.facts import BatchFact, SampledCall, ShedFact
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.masking import NAMED_SO, SecretKeys
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.state_log import StateLog

MAX_RULES = 16  # whose names a span has
STOP_S = 1.0  # that the last spans may take when the service stops


class BatchRecord(NamedTuple):
    """What the calls of a batch have in common; instants are nanoseconds since 1970. `error` is the store's, if any."""

    asked_ns: int
    decided_ns: int
    calls: int
    error_kind: str = ""
    error: str = ""


class CallRecord(NamedTuple):
    """A decided call; instants are nanoseconds since 1970.

    `code` is None where it failed, `given` what the failure policy gave it. `sent`: the store was asked about it, with
    the calls of `batch`, which is None where the call was not decided in time; `shed` then says why. `secret` are the
    keys whose values are masked in the names of `rules`.
    """

    parent: TraceParent
    arrived_ns: int
    answered_ns: int
    domain: str
    tier: str | None
    rules: tuple[str, ...]
    code: Code | None
    source: Source
    given: OnStoreFailure | None
    sent: bool
    batch: BatchRecord | None = None
    shed: str = ""
    secret: SecretKeys = NAMED_SO


class Receiver(Protocol):
    """Where spans are sent to."""

    def send(self, calls: Sequence[CallRecord]) -> str:
        """Send the spans of these calls, which may take long; returns what went wrong, or nothing."""
        ...

    def close(self) -> None:
        """Give up what is being sent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How calls wait until they are sent: at most `max_calls`, for `delay_s`, or until there are `max_batch`."""

    max_calls: int = 1024
    max_batch: int = 256
    delay_s: float = 5.0


class Tracing:
    """An observer that has the sampled calls sent to `receiver`; `write` is called with changes of its state.

    That is with a reason where spans are lost, and with None once they are sent again. `masked` knows which names of
    rules must not be shown any more: spans are sent without them.
    """

    def __init__(
        self,
        receiver: Receiver,
        write: Callable[[str | None], None],
        limits: QueueLimits = QueueLimits(),
        *,
        clock: Callable[[], float] = time.perf_counter,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._receiver = receiver
        self._limits = limits
        self._clock = clock
        self._unix_ns = unix_ns
        self.masked = MaskedNames()
        self._queue: deque[CallRecord] = deque()
        self._dropped = 0
        self._wake = Event()
        self._stopping = False
        self._reason = ""
        self._log = StateLog(lambda lost: write(self._reason if lost else None))
        self._thread: Thread | None = None

    # On the event loop

    def start(self) -> None:
        """Begin to send."""
        loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._run, args=(loop,), name="tracing", daemon=True)
        self._thread.start()

    def waiting(self) -> int:
        """The number of calls that wait to be sent."""
        return len(self._queue)

    async def aclose(self) -> None:
        """Send what waits, within STOP_S."""
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(thread.join, STOP_S)
        self._receiver.close()
        await asyncio.to_thread(thread.join, STOP_S)

    def batch_decided(self, fact: BatchFact) -> None:
        """Keep the sampled calls of the batch."""
        if not fact.sampled:
            return
        offset_ns = self._offset_ns()
        batch = BatchRecord(
            offset_ns + round(fact.asked_at * 1e9),
            offset_ns + round(fact.decided_at * 1e9),
            sum(group.calls for group in fact.groups),
            *(() if fact.store_error is None else (fact.store_error.kind, str(fact.store_error))),
        )
        answered_ns = offset_ns + round(fact.answered_at * 1e9)
        for call in fact.sampled:
            self._keep(_record(call, offset_ns, answered_ns, batch))

    def call_shed(self, fact: ShedFact) -> None:
        """Keep the call, if it is sampled."""
        if fact.sampled is not None:
            record = _record(fact.sampled, self._offset_ns(), self._unix_ns(), None)
            self._keep(record._replace(shed=fact.reason))

    def _offset_ns(self) -> int:
        """From the transport's clock to the time of day."""
        return self._unix_ns() - round(self._clock() * 1e9)

    def _keep(self, record: CallRecord) -> None:
        if len(self._queue) >= self._limits.max_calls:
            self._dropped += 1
            return
        self._queue.append(record)
        if len(self._queue) >= self._limits.max_batch:
            self._wake.set()

    def _note(self, reason: str) -> None:
        self._reason = reason or self._reason
        self._log.changed(state=bool(reason))

    # In the thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        dropped = 0
        while True:
            self._wake.wait(self._limits.delay_s)
            self._wake.clear()
            while self._queue:
                calls = [self._take() for _ in range(min(len(self._queue), self._limits.max_batch))]
                try:
                    reason = self._receiver.send(calls)
                except Exception as error:  # noqa: BLE001 - whatever it is, later spans are sent
                    reason = f"{type(error).__name__}: {error}"
                given_up = bool(reason) and self._stopping
                before, dropped = dropped, self._dropped
                if not reason and dropped > before:
                    reason = "more calls are sampled than can be sent: have Envoy sample fewer"
                with suppress(RuntimeError):  # the loop is closed: the service has stopped
                    loop.call_soon_threadsafe(self._note, reason)
                if given_up:
                    return
            if self._stopping:
                return

    def _take(self) -> CallRecord:
        call = self._queue.popleft()
        return call if self.masked.show(call.domain, call.secret) else call._replace(rules=())


def _record(call: SampledCall, offset_ns: int, answered_ns: int, batch: BatchRecord | None) -> CallRecord:
    group = call.group
    plan = group.plan
    sent = group.source is Source.STORE or group.without_store is Uncounted.SENT
    return CallRecord(
        call.parent,
        offset_ns + round(call.arrived * 1e9),
        answered_ns,
        plan.template.domain,
        plan.template.tier,
        tuple(dict.fromkeys([rule.name for rule in plan.tally.rules[:MAX_RULES]])),
        call.code,
        group.source,
        group.given,
        sent,
        batch,
        secret=plan.template.secret,
    )
