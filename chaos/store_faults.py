"""Faults of the store and of the way to it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from chaos.faults import FEW, Cause, Fault, Faults
from chaos.stage import PASSWORD, RESOLVER, USER, Stage, Way
from tests.support.proxy import Conduct

Command = tuple[str | int, ...]

HANG_UP: Command = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
FRESH_KEYS, KEY_DELAY_US = 3000, 1000  # what loading them takes: 3 s
PAUSE_MS = 10_000  # longer than it takes to save them, and to end the server
FILL = "for i = 1, ARGV[1] do redis.call('SET', 'fresh:' .. i, 'x', 'EX', 60) end"
FILLER_BYTES, FILLER_EVERY_S = 20_000, 0.005


def setting(name: str, value: str | int) -> Command:
    """A CONFIG SET."""
    return ("CONFIG", "SET", name, value)


def user(*rules: str) -> Command:
    """A change of the rights that the replicas have."""
    return ("ACL", "SETUSER", USER, *rules)


def commands(*cause: Command, mend: tuple[Command, ...]) -> Cause:
    """A fault that the store's administrator brings about."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        await stage.command(*cause)
        try:
            yield
        finally:
            await stage.command(*mend)

    return fault


def repeated(every_s: float, *them: Command) -> Cause:
    """Commands that are run again and again."""

    async def once(stage: Stage) -> None:
        await stage.command(*them)

    return over_and_over(every_s, once)


def over_and_over(every_s: float, once: Callable[[Stage], Awaitable[None]]) -> Cause:
    """Something that happens again and again."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        over = False

        async def go_on() -> None:
            while not over:
                await once(stage)
                await asyncio.sleep(every_s)

        going_on = asyncio.create_task(go_on())
        try:
            yield
        finally:
            over = True
            await going_on

    return fault


@asynccontextmanager
async def killed(stage: Stage) -> AsyncIterator[None]:
    """SIGKILL; what comes back knows nothing."""
    await asyncio.to_thread(stage.store.stop, signal.SIGKILL)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.store.start)


@asynccontextmanager
async def frozen(stage: Stage) -> AsyncIterator[None]:
    """SIGSTOP: the system still accepts connections and bytes for it."""
    stage.store.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.store.signal(signal.SIGCONT)


def slow(delay_s: float) -> Cause:
    """Each answer comes later."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        for proxy in stage.proxies:
            proxy.delay_s = delay_s
        try:
            yield
        finally:
            for proxy in stage.proxies:
                proxy.delay_s = 0

    return fault


def conduct(how: Conduct, *, of: tuple[int, ...] = (0, 1), cut: bool = False) -> Cause:
    """The way to the store does something else with bytes, and with `cut` ends the connections first."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        for i in of:
            stage.proxies[i].conduct = how
            if cut:
                stage.proxies[i].cut()
        try:
            yield
        finally:
            for i in of:
                stage.proxies[i].conduct = Conduct.HAND_ON
                if how is Conduct.SWALLOW:
                    stage.proxies[i].cut()  # half of what was sent is gone: no connection can go on

    return fault


@asynccontextmanager
async def refusing(stage: Stage) -> AsyncIterator[None]:
    """Connections end with RST, and new ones are refused so."""
    for proxy in stage.proxies:
        proxy.refuse()
    try:
        yield
    finally:
        for proxy in stage.proxies:
            await proxy.listen()


@asynccontextmanager
async def loading(stage: Stage) -> AsyncIterator[None]:
    """It is started with its data, and takes its time to load them."""
    # Nothing is counted any more by then: it would be lost.
    await stage.command(("EVAL", FILL, 0, FRESH_KEYS), ("CLIENT", "PAUSE", PAUSE_MS, "WRITE"), ("SAVE",))
    await asyncio.to_thread(stage.store.stop, signal.SIGKILL)
    stage.store.slow_loading(delay_us=KEY_DELAY_US)
    try:
        await asyncio.to_thread(stage.store.start)
        yield
    finally:
        stage.store.slow_loading(delay_us=0)
        await stage.command(("CONFIG", "SET", "key-load-delay", 0))
        (stage.store.folder / "dump.rdb").unlink(missing_ok=True)


@asynccontextmanager
async def moved_by_address(stage: Stage) -> AsyncIterator[None]:
    """Another server takes over the address, and the one before it keeps the connections that it has."""
    await stage.start_spare()
    await stage.fail_over()
    for proxy in stage.proxies:
        proxy.target = stage.store.port
    try:
        yield
    finally:
        await asyncio.to_thread(stage.spare.stop)


@asynccontextmanager
async def moved_by_name(stage: Stage) -> AsyncIterator[None]:
    """The name stands for another server, and the one before it is a replica."""
    await stage.start_spare()
    await stage.fail_over()
    stage.name_store(stage.store.host)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.spare.stop)


@asynccontextmanager
async def resolver_dead(stage: Stage) -> AsyncIterator[None]:
    """The name is unknown, the resolver does not answer, and the connections end."""
    with contextlib.ExitStack() as exits:
        with suppress(OSError):  # who may not listen there has a resolver that refuses
            exits.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((RESOLVER, 53))
        stage.name_store(None)
        await stage.command(HANG_UP)
        try:
            yield
        finally:
            stage.name_store(stage.store.host)


@asynccontextmanager
async def evicting(stage: Stage) -> AsyncIterator[None]:
    """It is full, and throws away whatever was not used for longest."""
    used = (await stage.command(("INFO", "memory")))[0]["used_memory"]
    await stage.command(setting("maxmemory-policy", "allkeys-random"), setting("maxmemory", used + 1_000_000))
    filled = 0

    async def fill(stage: Stage) -> None:
        nonlocal filled
        filled += 1
        await stage.command(("SET", f"filler:{filled}", "x" * FILLER_BYTES, "EX", 60))

    try:
        async with over_and_over(FILLER_EVERY_S, fill)(stage):
            yield
    finally:
        fillers: list[Command] = [("DEL", f"filler:{i + 1}") for i in range(filled)]
        await stage.command(setting("maxmemory", 0), setting("maxmemory-policy", "noeviction"), *fillers)


@asynccontextmanager
async def certificate_expired(stage: Stage) -> AsyncIterator[None]:
    """New connections are shown a certificate that ended yesterday, and those that there are end."""
    stage.certify(expired=True)
    for proxy in stage.proxies:
        proxy.cut()
    try:
        yield
    finally:
        stage.certify(expired=False)


STORE: Faults = {
    "killed": Fault(cause=killed, forgets=1),
    "frozen_3s": Fault(cause=frozen),
    "frozen_30s": Fault(cause=frozen, seconds=30, policies=FEW),
    "slow_50ms": Fault(cause=slow(0.05), way=Way.PROXIED),
    "slow_200ms": Fault(cause=slow(0.2), way=Way.PROXIED),
    "cut_mid_answer": Fault(cause=conduct(Conduct.CUT_ANSWERS), way=Way.PROXIED),
    "swallowing": Fault(cause=conduct(Conduct.SWALLOW), way=Way.PROXIED),
    "refusing": Fault(cause=refusing, way=Way.PROXIED),
    "refusing_30s": Fault(cause=refusing, way=Way.PROXIED, seconds=30, policies=FEW),
    "accepting_and_closing": Fault(cause=conduct(Conduct.HANG_UP, cut=True), way=Way.PROXIED),
    "loading": Fault(cause=loading),
    "read_only": Fault(cause=commands(("REPLICAOF", "127.0.0.1", 1), mend=(("REPLICAOF", "NO", "ONE"),))),
    "moved_by_address": Fault(cause=moved_by_address, way=Way.PROXIED),
    "moved_by_name": Fault(cause=moved_by_name, way=Way.NAMED),
    "resolver_dead": Fault(cause=resolver_dead, way=Way.NAMED),
    "full": Fault(cause=commands(setting("maxmemory", 1), mend=(setting("maxmemory", 0),))),
    "evicting": Fault(cause=evicting, forgets=float("inf")),
    "password_changed": Fault(
        cause=commands(user("resetpass", ">another"), HANG_UP, mend=(user("resetpass", f">{PASSWORD}"),))
    ),
    "rights_narrowed": Fault(cause=commands(user("-set"), mend=(user("+set"),))),
    "script_flush": Fault(cause=repeated(0.02, ("SCRIPT", "FLUSH"))),
    "client_kill": Fault(cause=repeated(0.1, HANG_UP), policies=FEW),
    "certificate_expired": Fault(cause=certificate_expired, way=Way.TLS),
}
