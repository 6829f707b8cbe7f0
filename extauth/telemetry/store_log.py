"""What operators are told of the store: few lines, however often it goes and comes."""

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from extauth.errors import StoreError
from extauth.limiter.facts import BatchFact, ShedFact

REPEAT_S = 60.0
OTHER_CAUSE_S = 10.0  # another cause is a line of its own, at most so often
STEADY_S = 1.0  # it is back once it was so for so long
FLAPPING_STEADY_S = 10.0  # or for so long, if it went less than REPEAT_S after it had come back


class Log(Protocol):
    """How a line is written; `level` is a method of structlog's loggers."""

    def __call__(self, level: str, event: str, **facts: str | float) -> None:
        """Write a line."""
        ...


class StoreLog:
    """Writes `store_down`, once a minute `store_still_down`, and `store_up`, each with what operators want to know.

    It is an observer, and counts the calls that are decided without the store while that is away. `callers_get` says
    what becomes of them. `clock` gives seconds.
    """

    def __init__(self, log: Log, callers_get: str, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._callers_get = callers_get
        self._clock = clock
        self._closed: bool | None = None
        self._cause: StoreError | None = None
        self._calls = 0
        self._down_since: float | None = None  # as logged
        self._closed_since = 0.0
        self._up_at = float("-inf")  # when `store_up` was logged
        self._said_at = 0.0
        self._said = ""

    def __str__(self) -> str:
        if self._closed is None:
            return "not checked yet"
        return "up" if self._closed else f"down: {self._cause}"

    @property
    def away_s(self) -> float | None:
        """For how many seconds the store has been away; None while it is not, and was not a moment ago."""
        return None if self._down_since is None else self._clock() - self._down_since

    @property
    def uncounted(self) -> int:
        """The calls that were decided without the store since it went away."""
        return self._calls

    def batch_decided(self, fact: BatchFact) -> None:
        """Count calls that were decided without the store."""
        for group in fact.groups:
            if group.without_store is not None:
                self._calls += group.calls

    def call_shed(self, fact: ShedFact) -> None:
        """Count it."""
        if not fact.counting:
            self._calls += 1

    def changed(self, cause: StoreError | None) -> None:
        """The store is up (None), or away because of `cause`."""
        now = self._clock()
        if cause is None:
            if not self._closed:
                self._closed_since = now
                first, self._closed = self._closed is None, True
                if first:
                    self._up_at = float("-inf")
                    self._log("info", "store_up")
            return
        self._closed, self._cause = False, cause
        if self._down_since is None:
            self._down_since, self._calls = now, 0
            self._say("store_down", now)
        elif str(cause) != self._said and now - self._said_at >= OTHER_CAUSE_S:
            self._say_still(now)

    def look(self) -> None:
        """Write what is due; called every second or so."""
        now = self._clock()
        if self._down_since is None:
            return
        if self._closed:
            flapping = self._down_since - self._up_at < REPEAT_S
            if now - self._closed_since >= (FLAPPING_STEADY_S if flapping else STEADY_S):
                away_s = round(self._closed_since - self._down_since, 1)
                self._log("info", "store_up", after_s=away_s, calls_without_the_store=self._calls)
                self._down_since, self._up_at = None, now
        elif now - self._said_at >= REPEAT_S or (
            str(self._cause) != self._said and now - self._said_at >= OTHER_CAUSE_S
        ):
            self._say_still(now)

    def _say_still(self, now: float) -> None:
        assert self._down_since is not None  # noqa: S101
        self._say("store_still_down", now, for_s=round(now - self._down_since), calls_without_the_store=self._calls)

    def _say(self, event: str, now: float, **more: float) -> None:
        cause = self._cause
        assert cause is not None  # noqa: S101
        self._said_at, self._said = now, str(cause)
        self._log("error", event, kind=cause.kind, reason=str(cause), **more, callers_get=self._callers_get)
