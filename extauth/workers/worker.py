"""A worker: decides the calls of the connections that its parent hands over, by the rules that its parent sends."""

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from time import thread_time
from typing import Any, Final, NamedTuple, NoReturn

import structlog

from extauth.background import keep_up
from extauth.config.many_objects import collector_off
from extauth.config.sources.packed import unpack
from extauth.core import Core
from extauth.errors import InvalidRequestError, SettingsError
from extauth.freed_memory import give_memory_back
from extauth.lifecycle import log_as, report_error, traces_of, tune_python
from extauth.limiter.counters import Uncounted
from extauth.replicas import Place
from extauth.rules.model import RuleSet
from extauth.settings import Settings
from extauth.telemetry.gathered import changes_of, samples_of
from extauth.telemetry.logs import logger
from extauth.telemetry.top import Top, pack_top
from extauth.transport.h2.server import H2Server
from extauth.transport.handover import HandedConnections
from extauth.transport.single_call import decide_call
from extauth.transport.tls import Tls
from extauth.workers.channel import Channel
from extauth.workers.count import settings_of_worker

TOP_BYTES: Final = 1 << 20


class Post(NamedTuple):
    """The sockets to a worker's parent, its number among `workers`, and the ID of its heartbeat."""

    parent: socket.socket
    handed: socket.socket
    number: int
    workers: int
    name: str


async def work(settings: Settings, environ: Mapping[str, str], post: Post) -> None:
    """Decide calls until the parent says that it is enough. If the parent is gone, the process ends at once."""
    structlog.contextvars.bind_contextvars(worker=post.number)
    log_as(settings)
    asyncio.get_running_loop().set_exception_handler(report_error)
    worker = Worker(settings_of_worker(settings, post.workers), post, await Channel.over(post.parent))
    async with AsyncExitStack() as stack:
        await worker.start(stack, environ)
        await worker.stopping.wait()
    await worker.close()


class Worker:
    """What a worker hears from its parent, and answers."""

    def __init__(self, settings: Settings, post: Post, channel: Channel) -> None:
        self.stopping = asyncio.Event()
        self._settings = settings
        self._post = post
        self._channel = channel
        self._core: Core | None = None
        self._draining = False
        self._handed = HandedConnections(post.handed, self._count_soon)
        self._counted = (0, 0)
        self._counting = False
        self._pieces: list[bytes] = []
        self._rules: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._answering: set[asyncio.Task[None]] = set()
        self._hearing = asyncio.create_task(self._hear())

    async def start(self, stack: AsyncExitStack, environ: Mapping[str, str]) -> None:
        """Take calls by the first rules that come, and then follow the others."""
        rules = await self._next_rules()
        place = Place(self._post.workers, self._post.name)
        settings = self._settings
        core = Core(settings, rules, traces_of(settings, environ), place=place, handed=self._handed)
        del rules
        self._core = core
        tune_python()
        await core.open(stack)
        await core.serve(stack)
        if self._draining:
            await core.engine.drain()
        keep_up(stack, give_memory_back)
        keep_up(stack, self._follow_rules)
        self._tell_rules(core)
        self._channel.send("ready")

    async def close(self) -> None:
        """Send what is left."""
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        self._channel.close()

    async def _next_rules(self) -> RuleSet:
        return await asyncio.to_thread(_unpacked, await self._rules.get())

    async def _follow_rules(self) -> None:
        assert self._core is not None  # noqa: S101
        while True:
            await self._core.take_rules(await self._next_rules())
            self._tell_rules(self._core)

    def _tell_rules(self, core: Core) -> None:
        self._channel.send("rules", core.planner.matcher.rules.digest)

    # Hearing the parent

    async def _hear(self) -> None:
        while True:
            try:
                message = await self._channel.receive()
            except EOFError:
                _end_at_once()
            match message:
                case "pieces", list(part):
                    self._pieces += part
                case ("rules",):
                    pieces, self._pieces = self._pieces, []
                    self._rules.put_nowait(pieces)
                case "ask", int(number), str(what), *arguments:
                    answering = asyncio.create_task(self._answer(number, what, arguments))
                    self._answering.add(answering)
                    answering.add_done_callback(self._answering.discard)
                case ("drain",):
                    self._draining = True
                    if self._core is not None:
                        await self._core.engine.drain()
                case ("tls",) if self._core is not None and self._core.tls is not None:
                    _reload(self._core.tls)
                case ("stop",):
                    self.stopping.set()

    async def _answer(self, number: int, what: str, arguments: list[Any]) -> None:
        last: object = None
        try:
            if self._core is not None:
                last = await self._answer_with(self._core, number, what, arguments)
        except Exception:  # noqa: BLE001 - whatever it is, calls are answered meanwhile
            logger().exception("worker_question_failed", question=what)
        self._channel.send("done", number, last)

    async def _answer_with(self, core: Core, number: int, what: str, arguments: list[Any]) -> object:
        match what:
            case "changes":
                return await self._send_changes(core, number)
            case "top":
                top = await core.callers.look(*arguments)
                await self._send_tops(number, [top._replace(rules=(rule,)) for rule in top.rules])
                return pack_top(top._replace(rules=()))
            case "call":
                return await _decide(core, *arguments)
            case "others":
                others = await core.replicas.others_top()
                await self._send_tops(number, others.tops)
                return others.replicas, others.unknown, others.problem
        return None

    async def _send_tops(self, number: int, tops: Iterable[Top]) -> None:
        """Send callers, in steps."""
        for top in tops:
            self._channel.send("part", number, pack_top(top, TOP_BYTES))
            await asyncio.sleep(0)

    async def _send_changes(self, core: Core, number: int) -> dict[str, Any]:
        """Send what the metrics have counted since the last time, in steps; returns the state of this worker."""
        spent_s, before = 0.0, thread_time()
        for change in changes_of(core.metrics):
            if change.counts:
                self._channel.send("part", number, tuple(change))
            spent_s += thread_time() - before
            await asyncio.sleep(0)
            before = thread_time()
        samples = list(samples_of(core.metrics))
        return {"samples": samples, "spent_s": spent_s + thread_time() - before, **self._state(core)}

    def _state(self, core: Core) -> dict[str, Any]:
        replicas = core.replicas
        return {
            "store": str(core.store),
            "away_s": core.store.away_s,
            "uncounted": core.store.uncounted,
            "breaker": str(core.breaker.state),
            "decided": core.planner.hits + core.planner.misses,
            "cut_off": replicas.is_cut_off(),
            "replicas": [tuple(each) for each in replicas.all()],
        }

    # Counting connections

    def _count_soon(self) -> None:
        """Tell the parent how many connections are open, once for all that are closed in this turn of the loop."""
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        self._counting = False
        engine = None if self._core is None else self._core.engine
        if isinstance(engine, H2Server):
            counted = (self._handed.received, engine.count_connections())
            if counted != self._counted:
                self._counted = counted
                self._channel.send("open", *counted)


def _unpacked(pieces: list[bytes]) -> RuleSet:
    with collector_off():
        return unpack(pieces, {})


def _reload(tls: Tls) -> None:
    """Load the certificates again, which the parent could load, and has logged."""
    try:
        tls.reload(unchanged=True)
    except SettingsError as error:
        logger().error("tls_rejected", reason=str(error), kept="the certificate in force stays")


async def _decide(core: Core, message: bytes) -> object:
    """The answer to a call that the parent took; a tuple of a text where it is invalid, None where it must fail."""
    try:
        answer = await decide_call(core.planner, core.batcher, message)
    except InvalidRequestError as error:
        return (str(error),)
    return None if isinstance(answer, Uncounted) else answer


def _end_at_once() -> NoReturn:
    """End, for nobody hands over connections or asks for numbers any more, and another parent may be starting."""
    logger().error("parent_gone", effect="this worker ends at once, with its connections")
    os._exit(1)
