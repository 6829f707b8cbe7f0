"""The events of `/live`: the state of the service, the rules, who calls, and what came in each second."""

import asyncio
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import PurePath
from time import monotonic, time
from typing import Any, Final, NamedTuple, Protocol

from extauth.counters.breaker import BreakerState
from extauth.counters.heartbeat import BEAT_S, Replica
from extauth.errors import ConfigError, Diagnostic
from extauth.limiter.planner import Planner
from extauth.overview.rule_table import RuleTable
from extauth.settings import Settings
from extauth.telemetry.events import CALLERS_GET
from extauth.telemetry.history import History
from extauth.telemetry.metrics import Metrics
from extauth.telemetry.top import Caller, RuleTop, Top
from extauth.version import own_version

FRESH_S: Final = 0.5  # streams that ask within this time share what was made
TOP_FRESH_S: Final = 2.5
HEARD_S: Final = 2 * BEAT_S + 2
"""Within this time after a reload of its own, a replica hears by heartbeat that the others have the same rules."""

MOST_RULES: Final = 30
MOST_CALLERS: Final = 10
MOST_OF_A_RULE: Final = 3
MOST_PROBLEMS: Final = 20


class CallersSource(Protocol):
    """As telemetry.callers.Callers."""

    async def look(self, most: int, most_rules: int) -> Top:
        """The most denied and busiest callers of this replica."""
        ...


class StoreSource(Protocol):
    """As telemetry.store_log.StoreLog."""

    def __str__(self) -> str:
        """How the store is."""
        ...

    @property
    def away_s(self) -> float | None:
        """For how many seconds it has been away."""
        ...

    @property
    def uncounted(self) -> int:
        """The calls that were decided without it since it went away."""
        ...


class BreakerSource(Protocol):
    """As counters.breaker.Breaker."""

    @property
    def state(self) -> BreakerState:
        """The state that it is in."""
        ...


class ReplicasSource(Protocol):
    """As replicas.Replicas."""

    def all(self) -> tuple[Replica, ...]:
        """This replica, and the others."""
        ...

    @property
    def cut_off(self) -> bool:
        """Whether another replica reaches the store and this one does not."""
        ...

    def detail(self) -> dict[str, Any]:
        """What is known of them, for people."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The parts of the service that are shown; `status` is that of `/readyz`."""

    settings: Settings
    planner: Planner
    metrics: Metrics
    history: History
    callers: CallersSource
    store: StoreSource
    breaker: BreakerSource
    replicas: ReplicasSource
    status: Callable[[], str]


class Seen(NamedTuple):
    """Up to where a page has had everything: the second of the history, and the refresh of the rules.

    After the history has forgotten series once more, a page is to get it all again.
    """

    second: int = 0
    refresh: int = 0
    forgotten: int = 0


class Overview:
    """What all streams of `/live` show."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._rules = RuleTable(sources.planner, sources.metrics.rules, PurePath(str(sources.settings.config)))
        self._started_s = self._tried_s = self._loaded_s = time()
        self._failure: Sequence[Diagnostic] = ()
        self._state = b""
        self._top = b""
        self._made_s = self._top_made_s = float("-inf")
        self._loads = 0  # how often rules were loaded
        self._reloaded_s = float("-inf")
        self._making = asyncio.Lock()

    def rules_loaded(self) -> list[dict[Any, Any]]:
        """Note that the config was read, and that its rules, or some of them, are in force.

        Returns tables that are no longer used, to be emptied bit by bit.
        """
        self._tried_s = time()
        self._failure = ()
        self._made_s = self._top_made_s = float("-inf")  # what was made is about other rules
        if self._loads:
            self._reloaded_s = monotonic()
        self._loads += 1
        if not self.sources.planner.matcher.rules.problems:
            self._loaded_s = self._tried_s
        return self._rules.forget()

    def reload_failed(self, error: ConfigError) -> None:
        """Note that the config could not be read."""
        self._tried_s = time()
        self._failure = error.problems

    async def event(self, seen: object) -> tuple[Iterator[bytes], Seen]:
        """As admin.live.Feed."""
        async with self._making:
            while monotonic() - self._made_s >= FRESH_S:
                loads = self._loads
                await self._rules.refresh()
                await self._refresh_top()
                if self._loads == loads:  # else it is about other rules
                    self._state = self._make_state()
                    self._made_s = monotonic()
        history = self.sources.history
        had = seen if isinstance(seen, Seen) else Seen()
        slice_ = history.since(had.second if had.forgotten == history.forgotten else 0)

        def pieces() -> Iterator[bytes]:
            yield self._state[:-1] + b', "rules": '
            yield from self._rules.json(had.refresh)
            yield b', "history": '
            yield from map(str.encode, slice_.json())
            yield b"}"

        return pieces(), Seen(slice_.last, self._rules.refreshed, history.forgotten)

    async def _refresh_top(self) -> None:
        if monotonic() - self._top_made_s >= TOP_FRESH_S:
            top = await self.sources.callers.look(MOST_CALLERS, MOST_RULES)
            self._top = json.dumps(_view_top(top)).encode()
            self._top_made_s = monotonic()

    def _make_state(self) -> bytes:
        sources = self.sources
        state = {
            "at": round(time(), 3),
            "service": self._service(),
            "store": self._store(),
            "config": self._config(),
            "replicas": self._replicas(),
            **sources.metrics.incidents(),
        }
        return json.dumps(state)[:-1].encode() + b', "top": ' + self._top + b"}"

    def _service(self) -> dict[str, Any]:
        detail = self.sources.replicas.detail()
        return {
            "version": own_version(),
            "replica": self.sources.settings.advertise or socket.gethostname(),
            "status": self.sources.status(),
            "started_s": round(self._started_s, 3),
            **{name: detail[name] for name in ("workers", "workers_ready") if name in detail},
        }

    def _store(self) -> dict[str, Any]:
        settings, store = self.sources.settings, self.sources.store
        away_s = store.away_s
        return {
            "text": str(store),
            "breaker": str(self.sources.breaker.state),
            "away_s": None if away_s is None else round(away_s, 1),
            "uncounted": store.uncounted,
            "policy": str(settings.on_store_failure),
            "policy_text": CALLERS_GET[settings.on_store_failure],
            "where": "in this process" if settings.counts_in_memory else settings.shown_redis_url(),
            "in_memory": settings.counts_in_memory,
        }

    def _config(self) -> dict[str, Any]:
        matcher = self.sources.planner.matcher
        problems = self._failure or matcher.rules.problems
        warnings = matcher.rules.warnings
        return {
            "path": str(self.sources.settings.config),
            "digest": matcher.rules.digest,
            "tried_s": round(self._tried_s, 3),
            "loaded_s": round(self._loaded_s, 3),
            "ok": not problems,
            "rules": matcher.size,
            "domains": list(matcher.rules.domains)[:MOST_RULES],
            "retained": sorted(matcher.rules.retained)[:MOST_RULES],
            "problem_count": len(problems),
            "problems": list(map(str, problems[:MOST_PROBLEMS])),
            "warning_count": len(warnings),
            "warnings": list(map(str, warnings[:MOST_PROBLEMS])),
        }

    def _replicas(self) -> dict[str, Any]:
        replicas = self.sources.replicas
        own, *others = every = replicas.all()
        own = own._replace(address=own.address or self.sources.settings.grpc_listen)
        agree: bool | None = len({each.rules for each in every}) == 1
        if not agree and monotonic() - self._reloaded_s < HEARD_S:
            agree = None  # it is not known yet
        return {
            "list": [own._asdict() | {"own": True}, *[each._asdict() | {"own": False} for each in others]],
            "agree": agree,
            "cut_off": replicas.cut_off,
        }


def _view_top(top: Top) -> dict[str, Any]:
    """The callers with the most calls over all rules and, of those denied, the first of each rule."""
    first = [(rule, caller) for rule in top.rules for caller in rule.denied[:MOST_OF_A_RULE]]
    denied = _most([(rule, caller) for rule in top.rules for caller in rule.denied])
    busiest = _most([(rule, caller) for rule in top.rules for caller in rule.busiest])
    return {
        "since_s": round(top.since_s, 1),
        "estimated": min(top.denied_examined, top.busiest_examined) < 1,
        "denied": [_view(*each) for each in dict.fromkeys([*denied, *first])],
        "busiest": [_view(*each) for each in busiest],
    }


def _most(callers: Sequence[tuple[RuleTop, Caller]]) -> list[tuple[RuleTop, Caller]]:
    return nlargest(MOST_CALLERS, callers, key=lambda each: each[1].calls)


def _view(rule: RuleTop, caller: Caller) -> dict[str, Any]:
    view = {"domain": rule.domain, "rule": rule.rule} | caller._asdict()
    return view | {"first_s": round(caller.first_s, 1), "last_s": round(caller.last_s, 1)}
