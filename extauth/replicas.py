"""What a replica knows of the others that share its store, and what follows from it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from fractions import Fraction
from time import monotonic
from typing import Any, Final, NamedTuple

from extauth.address import reachable_address
from extauth.counters.breaker import BreakerState, Guard
from extauth.counters.cut_off import CutOff
from extauth.counters.heartbeat import (
    BEAT_S,
    Heartbeat,
    Registry,
    Replica,
    automatic_share,
    other_shards,
    replica_of,
    shards_detail,
)
from extauth.errors import StoreError
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.planner import Planner
from extauth.settings import Settings
from extauth.telemetry.logs import logger
from extauth.telemetry.state_log import StateLog
from extauth.telemetry.top import OthersTop, Top, TopOfAll, pack_top, unpack_top
from extauth.transport.engine import Engine
from extauth.transport.h2.health import STORE_SERVICE
from extauth.transport.health_client import is_serving
from extauth.transport.tls import Tls
from extauth.version import own_version

ASK_TIMEOUT_S = 0.5
MOST_NAMED = 3  # replicas, in a log line


class Place(NamedTuple):
    """One of `workers` that are a replica together; `name` is the ID of its heartbeat."""

    workers: int = 1
    name: str | None = None


ALONE: Final = Place()


class Replicas:
    """This replica among the others, with the rules of its `planner`.

    `policy` gets its share of each limit. `registry` is where heartbeats are kept; without it there are no others.
    They are asked over TLS where `tls` is what this one serves with. `top` gives the callers of this replica, which
    its heartbeats tell the others. Of a replica of several workers this is one, which its `place` describes.
    """

    def __init__(
        self,
        settings: Settings,
        policy: FailurePolicy,
        breaker: Guard,
        registry: Registry | None,
        *,
        planner: Planner,
        top: Callable[[], Awaitable[Top]],
        tls: Tls | None,
        place: Place = ALONE,
    ) -> None:
        self._settings = settings
        self._place = place
        self._policy = policy
        self._breaker = breaker
        self._registry = registry
        self._planner = planner
        self._top = top
        self._heartbeat = (
            None if registry is None else Heartbeat(registry, self._describe, self._report, name=place.name)
        )
        self._reading_tops = asyncio.Lock()
        self._others = OthersTop()
        self._others_read_s = float("-inf")
        self._heartbeat_failed = False
        self._tls = tls
        self._cut_off = CutOff(self._addresses, self._ask, self._cut_off_changed)
        self._health_changed = asyncio.Event()
        self._log = StateLog(self._write)
        self._shards_log = StateLog(self._write_shards)
        self._state = BreakerState.CLOSED
        self._set_share()

    async def keep_beating(self) -> None:
        """Leave heartbeats for ever, while the store answers."""
        if self._heartbeat is not None:
            await self._heartbeat.keep(lambda: self._breaker.registry_state, self._note_heartbeat)

    async def keep_asking(self) -> None:
        """Find out for ever whether this replica alone is cut off, while the store does not answer."""
        await self._cut_off.keep_looking()

    async def keep_reporting(self, engine: Engine, healthy: Callable[[], bool] = lambda: True) -> None:
        """Report to health checks for ever: NOT_SERVING while another replica reaches the store and this one does not.

        It is NOT_SERVING, too, while it is not `healthy`, which `health_changed` has looked at again.

        With all of them cut off, all are SERVING: an Envoy without a healthy replica counts nothing.
        """
        while True:
            closed = self._breaker.state is BreakerState.CLOSED
            await engine.report(serving=not self._cut_off.cut_off and healthy(), store=closed)
            await self._health_changed.wait()
            self._health_changed.clear()

    def health_changed(self) -> None:
        """Have `keep_reporting` report anew."""
        self._health_changed.set()

    async def leave(self) -> None:
        """Have the others know that this replica ends, if the store answers."""
        if self._heartbeat is not None and self._breaker.registry_state is BreakerState.CLOSED:
            with suppress(StoreError):
                await self._heartbeat.leave()

    def breaker_changed(self) -> None:
        """Follow the breaker; to be called whenever its state has changed."""
        before, self._state = self._state, self._breaker.state
        self._cut_off.breaker_changed(self._state)
        self._health_changed.set()
        if before is BreakerState.CLOSED and self._state is BreakerState.OPEN:
            self._set_share()

    def seen(self) -> int:
        """The number of replicas as of the last heartbeat, this one included."""
        return 1 if self._heartbeat is None else 1 + len(self._heartbeat.others)

    def is_cut_off(self) -> bool:
        """Whether the store answers another replica and not this one."""
        return self._cut_off.cut_off

    def share(self) -> float:
        """The part of each limit that this replica admits by itself, where it counts locally."""
        return float(self._policy.share)

    async def top_of_all(self) -> TopOfAll:
        """The callers of all replicas, those of the others as of at most twice BEAT_S ago."""
        return await (await self.others_top()).with_own([await self._top()])

    async def others_top(self) -> OthersTop:
        """The callers of the other replicas, as of at most twice BEAT_S ago."""
        async with self._reading_tops:  # all who ask at a time share one look at the others
            if monotonic() - self._others_read_s >= BEAT_S:
                self._others = await self._read_others()
                self._others_read_s = monotonic()
        return self._others

    async def _read_others(self) -> OthersTop:
        if self._heartbeat is None:
            return OthersTop()
        known = len(self._heartbeat.others)
        if self._breaker.registry_state is not BreakerState.CLOSED:
            return OthersTop(unknown=known, problem="Redis, through which replicas report their callers, is away")
        names = self._heartbeat.reporting
        try:
            reports = await self._heartbeat.read_reports()
        except StoreError as error:
            return OthersTop(unknown=known, problem=str(error))
        found = await asyncio.to_thread(list, map(unpack_top, reports))
        tops = [(replica_of(name), top) for name, top in zip(names, found, strict=True) if top is not None]
        replicas = len({replica for replica, _ in tops})
        return OthersTop(tuple([top for _, top in tops]), replicas, len(set(map(replica_of, names))) - replicas)

    async def _report(self) -> bytes:
        try:
            return pack_top(await self._top())
        except Exception:  # noqa: BLE001 - whatever it is, the heartbeat matters more
            logger().exception("report_failed", effect="the other replicas do not show the callers of this one")
            return b""

    def detail(self) -> dict[str, Any]:
        """What is known of the others, for people."""
        if self._heartbeat is None:
            return {}
        shards = shards_detail(self._settings.shards, self._heartbeat.others)
        return {"replicas": self.seen(), "cut_off": self.is_cut_off(), **shards}

    @property
    def cut_off(self) -> bool:
        """Whether another replica reaches the store and this one does not."""
        return self._cut_off.cut_off

    def all(self) -> tuple[Replica, ...]:
        """This replica, and the others that the last heartbeat found."""
        return (self._describe(), *(() if self._heartbeat is None else self._heartbeat.others))

    def _set_share(self) -> None:
        """Reckon with the replicas that there were before the store was away: afterwards none can be counted."""
        share = self._settings.local_share
        if share == "auto":
            seen = 0 if self._heartbeat is None else self._heartbeat.most_seen()
            self._policy.share = automatic_share(seen, (self._settings.replicas or 1) * self._place.workers)
        else:  # 0.1 is a tenth, and no binary fraction near it
            self._policy.share = Fraction(str(share)) / self._place.workers

    def _describe(self) -> Replica:
        settings = self._settings
        address = settings.advertise
        if address is None and self._registry is not None:
            address = reachable_address(settings.grpc_listen, self._registry.local_host())
        rules = self._planner.matcher.rules
        return Replica(address, own_version(), rules.digest, str(self._breaker.state), settings.shards)

    def _addresses(self) -> list[str]:
        others = () if self._heartbeat is None else self._heartbeat.others
        return [other.address for other in others if other.address is not None]

    async def _ask(self, address: str) -> bool:
        try:
            tls = None if self._tls is None else self._tls.client()
        except OSError:  # while the files are being replaced
            return False
        return await is_serving(address, STORE_SERVICE, ASK_TIMEOUT_S, tls)

    def _cut_off_changed(self) -> None:
        self._health_changed.set()
        self._log.changed(state=self._cut_off.cut_off)

    @staticmethod
    def _write(cut_off: bool) -> None:
        if cut_off:
            logger().warning("cut_off", reason="the store answers another replica", health="NOT_SERVING")
        else:
            logger().info("not_cut_off", health="SERVING")

    def _note_heartbeat(self, error: StoreError | None) -> None:
        if error is not None and not self._heartbeat_failed and self._breaker.registry_state is BreakerState.CLOSED:
            logger().warning("heartbeat_failed", reason=str(error), effect="the other replicas do not know of this one")
        self._heartbeat_failed = error is not None
        if error is None:
            self._shards_log.changed(state=bool(self._other_shards()))

    def _other_shards(self) -> dict[str, int]:
        return other_shards(self._settings.shards, () if self._heartbeat is None else self._heartbeat.others)

    def _write_shards(self, differ: bool) -> None:
        if differ:
            others = [f"{address} has {shards}" for address, shards in self._other_shards().items()]
            more = [f"{len(others) - MOST_NAMED} more"] if len(others) > MOST_NAMED else []
            logger().warning(
                "shards_differ",
                own=self._settings.shards,
                others=", ".join([*others[:MOST_NAMED], *more]),
                effect="they count under other names than this one, so a caller gets its limits from both",
                fix="set EXTAUTH_SHARDS to the same number for all replicas",
            )
        else:
            logger().info("shards_agree", shards=self._settings.shards)
