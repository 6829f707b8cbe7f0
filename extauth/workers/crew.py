"""The workers of a service: starts them, starts dead ones again, and asks all of them."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from extauth.config.sources.packed import pack
from extauth.counters.heartbeat import new_replica
from extauth.errors import InvalidRequestError, SettingsError
from extauth.limiter.counters import Uncounted
from extauth.limiter.templates import Answer
from extauth.rules.model import RuleSet
from extauth.telemetry.gathered import Changes, GatheredMetrics
from extauth.telemetry.logs import logger
from extauth.workers.process import WorkerProcess, how_it_ended

ANSWER_S: Final = 1.0
CALL_S: Final = 60.0  # its own bound is EXTAUTH_REDIS_TIMEOUT
RULES_S: Final = 30.0
PART_BYTES: Final = 65_536
HANGS_S: Final = 30.0
START_S: Final = 60.0
STEADY_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0

_Ask = Callable[[WorkerProcess], "asyncio.Future[Any]"]


class Crew:
    """So many `workers`, whose numbers go into `metrics`.

    `rules` are those that a worker begins with. A worker that ends is started again: at once if it worked for STEADY_S,
    else after a pause that doubles each time.
    """

    def __init__(self, workers: int, environ: Mapping[str, str], metrics: GatheredMetrics, rules: RuleSet) -> None:
        self.workers = workers
        self.replica = new_replica()
        self.rules = rules
        self.swaps = 0
        """How often all workers have put other rules in force."""

        self._environ = environ
        self._metrics = metrics
        self._processes: dict[int, WorkerProcess] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self._begun = [asyncio.Event() for _ in range(workers)]  # which have taken calls at some time
        self._cannot_begin: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        self._draining = False
        self._gathering = asyncio.Lock()

    @property
    def ready(self) -> list[WorkerProcess]:
        """Those that take calls."""
        return [process for process in self._processes.values() if process.ready.is_set()]

    @property
    def takers(self) -> list[WorkerProcess]:
        """Those that are to get connections: of those that are ready, the ones that answer, if any do."""
        ready = self.ready
        return [process for process in ready if not process.late_s] or ready

    # Starting and ending

    async def start(self) -> None:
        """Start them, and return once all take calls; raises SettingsError if one of them cannot."""
        self._keeping = [asyncio.create_task(self._keep(number)) for number in range(self.workers)]
        beginning = asyncio.create_task(self._until_begun())
        await asyncio.wait((beginning, self._cannot_begin), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        if self._cannot_begin.done():
            raise SettingsError(self._cannot_begin.result())
        if not beginning.done():
            raise SettingsError(f"not all of EXTAUTH_WORKERS={self.workers} workers began within {START_S:g} s")

    async def _until_begun(self) -> None:
        for begun in self._begun:
            await begun.wait()

    async def _keep(self, number: int) -> None:
        """Have the worker of this number work, for ever."""
        pause_s = 0.0
        while True:
            began_s = monotonic()
            ended = await self._run(number)
            worked_s = monotonic() - began_s
            if self._stopping.is_set():
                return
            if not self._begun[number].is_set():
                if not self._cannot_begin.done():
                    how = ", ".join(f"{name} {value}" for name, value in ended.items())
                    self._cannot_begin.set_result(f"worker {number} ended before it could take calls: {how}")
                return
            pause_s = 0.0 if worked_s >= STEADY_S else min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            logger().error(
                "worker_ended",
                worker=number,
                **ended,
                after_s=round(worked_s, 1),
                again_in_s=pause_s,
                effect="its connections are closed, and its clients connect again, to the other workers",
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return

    async def _run(self, number: int) -> dict[str, str | int]:
        """Run a worker's process until it ends; returns how it did."""
        try:
            process = await WorkerProcess.start(number, self.workers, self.replica, self._environ)
        except OSError as error:
            return {"reason": f"its process cannot be started: {error.strerror}"}
        self._processes[number] = process
        self._metrics.worker_began(number, process.pid)
        running, beginning = asyncio.create_task(process.run()), asyncio.create_task(self._note_begin(process))
        try:
            with suppress(OSError):  # it has ended already
                await process.send_rules(self._packed)
            if self._draining:
                process.tell("drain")
            if self._stopping.is_set():
                process.tell("stop")
            return how_it_ended(await running)
        except Exception as error:  # noqa: BLE001 - whatever it is, another process may do better
            logger().exception("worker_lost", worker=number)
            return {"reason": f"a fault of the parent: {type(error).__name__}"}
        finally:
            running.cancel()
            beginning.cancel()
            process.kill()
            self._processes.pop(number, None)
            self._metrics.worker_ended(number)

    async def _note_begin(self, process: WorkerProcess) -> None:
        await process.ready.wait()
        if self._begun[process.number].is_set():
            logger().info("worker_started", worker=process.number, pid=process.pid)
        self._begun[process.number].set()

    async def drain(self) -> None:
        """Have all of them report NOT_SERVING."""
        self._draining = True
        self.tell("drain")

    async def stop(self, grace_s: float) -> None:
        """Have all of them answer what is in flight and end; those that take longer than `grace_s` are killed."""
        self._stopping.set()
        self.tell("stop")
        if self._keeping:
            _, late = await asyncio.wait(self._keeping, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._keeping, return_exceptions=True)

    # Asking

    def tell(self, what: str) -> None:
        """As WorkerProcess.tell, to each."""
        for process in self._processes.values():
            process.tell(what)

    async def ask(self, ask: _Ask, most: int | None = None) -> list[tuple[WorkerProcess, Any]]:
        """The answers of all that take calls, or of at most `most` of them, and that answer in time."""
        asked = {ask(process): process for process in self.ready[:most]}
        if not asked:
            return []
        await asyncio.wait(asked, timeout=ANSWER_S)
        answered = [(process, answer) for answer, process in asked.items() if answer.done() and not answer.cancelled()]
        return [(process, answer.result()) for process, answer in answered if answer.result() is not None]

    async def decide(self, message: bytes) -> Answer:
        """Have a worker decide a call, the one with the least to do; raises InvalidRequestError."""
        process = min(self.takers, key=lambda process: process.load, default=None)
        if process is None:
            return Uncounted.UNSENT
        asked = process.ask("call", message)
        await asyncio.wait((asked,), timeout=CALL_S)
        if not asked.done() or asked.cancelled():
            return Uncounted.SENT
        match asked.result():
            case bytes(answer):
                return answer
            case (str(text),):
                raise InvalidRequestError(text)
        return Uncounted.SENT

    async def gather(self) -> float:
        """Add what all have counted up to now to the metrics; returns the seconds of CPU that it took the busiest.

        What comes late from one that does not answer in time is added once it comes.
        """
        async with self._gathering:
            asked = self.ready
            answers = dict(await self.ask(self._ask_changes))
            for process in asked:
                process.note(answers.get(process))
                if process.late_s > HANGS_S:
                    logger().error("worker_hangs", worker=process.number, for_s=HANGS_S, effect="it is started again")
                    process.kill()
            for process, state in answers.items():
                self._metrics.set(process.number, state["samples"])
            for _ in self._metrics.read_processes():
                await asyncio.sleep(0)
            return max((state["spent_s"] for state in answers.values()), default=0.0)

    def _ask_changes(self, process: WorkerProcess) -> "asyncio.Future[Any]":
        return process.ask("changes", part=lambda part: self._metrics.add(Changes(*part)))

    async def swap(self, rules: RuleSet) -> None:
        """Have all put these rules in force, and those that are started later begin with them.

        A worker that does not take them, or takes others, is started again.
        """
        self.rules = rules
        parts = await self._packed()
        processes = list(self._processes.values())
        await asyncio.gather(*(self._send_rules(process, parts) for process in processes))
        for process in processes:
            if process in self._processes.values() and process.rules != rules.digest:
                logger().error("worker_has_other_rules", worker=process.number, effect="it is started again")
                process.kill()
        self.swaps += 1

    async def _send_rules(self, process: WorkerProcess, parts: list[list[bytes]]) -> None:
        async def packed() -> list[list[bytes]]:
            return parts

        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(RULES_S):
                await process.send_rules(packed)
                await process.until_rules_taken()

    async def _packed(self) -> list[list[bytes]]:
        return await asyncio.to_thread(lambda: list(_in_parts(pack(self.rules, whole=True))))


def _in_parts(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The pieces of rules, of which each domain has one at least, in parts of about PART_BYTES."""
    part: list[bytes] = []
    size = 0
    for piece in pieces:
        part.append(piece)
        size += len(piece)
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    yield part
