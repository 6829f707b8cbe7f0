"""What a service of several workers shows of its store, its replicas and its callers: what its workers say, as one."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from extauth.counters.breaker import BreakerState, worst
from extauth.counters.heartbeat import Replica, shards_detail
from extauth.telemetry.top import OthersTop, Top, TopOfAll, sum_tops, unpack_top
from extauth.version import own_version
from extauth.workers.crew import Crew
from extauth.workers.process import WorkerProcess

UP: Final = "up"


class StoreView:
    """As StoreLog: of the workers' stores the one that is worst off."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def __str__(self) -> str:
        texts = [str(state["store"]) for state in _states(self._crew)]
        away = [text for text in texts if text != UP]
        if not texts:
            return "not checked yet"
        if not away:
            return UP
        return away[0] if len(away) == len(texts) else f"{away[0]} (for {len(away)} of {len(texts)} workers)"

    @property
    def away_s(self) -> float | None:
        """As StoreLog.away_s."""
        return max((state["away_s"] for state in _states(self._crew) if state["away_s"] is not None), default=None)

    @property
    def uncounted(self) -> int:
        """As StoreLog.uncounted."""
        return sum(state["uncounted"] for state in _states(self._crew))


class BreakerView:
    """As Breaker."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    @property
    def state(self) -> BreakerState:
        """The worst state of a worker's breaker."""
        return worst(BreakerState(state["breaker"]) for state in _states(self._crew))


class ReplicasView:
    """As Replicas."""

    def __init__(self, crew: Crew, breaker: BreakerView) -> None:
        self._crew = crew
        self._breaker = breaker

    def all(self) -> tuple[Replica, ...]:
        """As Replicas.all; the others are those that the worker knows who knows of most."""
        known = [[Replica(*each) for each in state["replicas"]] for state in _states(self._crew)]
        own, *others = max(known, key=len, default=[Replica(None, "", "", "")])
        return (
            Replica(own.address, own_version(), self._crew.rules.digest, str(self._breaker.state), own.shards),
            *others,
        )

    @property
    def cut_off(self) -> bool:
        """Whether the store answers another replica, and not each of the workers."""
        return any(state["cut_off"] for state in _states(self._crew))

    def detail(self) -> dict[str, Any]:
        """As Replicas.detail, and how many workers there are."""
        own, *others = self.all()
        return {
            "replicas": 1 + len(others),
            "cut_off": self.cut_off,
            **shards_detail(own.shards, others),
            "workers": self._crew.workers,
            "workers_ready": len(self._crew.ready),
        }


class CallersView:
    """As Callers: those of all workers."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    async def look(self, most: int, most_rules: int) -> Top:
        """As Callers.look."""
        return await asyncio.to_thread(sum_tops, await self.tops(most, most_rules), most)

    async def tops(self, *bounds: int) -> list[Top]:
        """Those of each worker."""
        while True:
            swaps = self._crew.swaps
            tops = await self._tops(*bounds)
            if swaps == self._crew.swaps:  # else they may have names that must not be shown any more
                return tops

    async def _tops(self, *bounds: int) -> list[Top]:
        parts: defaultdict[WorkerProcess, list[bytes]] = defaultdict(list)
        answers = await self._crew.ask(lambda process: process.ask("top", *bounds, part=parts[process].append))
        return await asyncio.to_thread(lambda: [_joined(last, parts[process]) for process, last in answers])

    async def of_all_replicas(self) -> TopOfAll:
        """As Replicas.top_of_all."""
        packed: list[bytes] = []
        others = OthersTop()
        for _, numbers in await self._crew.ask(lambda process: process.ask("others", part=packed.append), most=1):
            others = OthersTop(tuple(await asyncio.to_thread(list, map(_unpacked, packed))), *numbers)
        return await others.with_own(await self.tops())


def _joined(head: bytes, rules: Iterable[bytes]) -> Top:
    """The callers of a worker, which come rule by rule."""
    return _unpacked(head)._replace(rules=tuple([rule for each in rules for rule in _unpacked(each).rules]))


def _unpacked(packed: bytes) -> Top:
    top = unpack_top(packed)
    assert top is not None  # noqa: S101 - our own process packed it
    return top


def _states(crew: Crew) -> list[dict[str, Any]]:
    """What each worker that takes calls said of itself last."""
    return [dict(process.state) for process in crew.ready if process.state]
