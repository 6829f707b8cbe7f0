"""The circuit breaker in front of the store: while that does not answer, calls are decided without asking it.

closed      Every batch asks the store. A batch that the store fails opens the breaker.
open        No batch asks. After a pause the next one is a trial. The pause is 50 ms at first and doubles with each
            trial that fails, up to 0.5 s, less up to a half by chance, so that replicas do not all come at once.
half-open   A trial is under way: up to 32 real calls, for a probe of one key may work where batches time out. They wait
            5 ms for it; the breaker waits as long as it takes, and closes if the store counts them. They are sent only
            over a connection on which the store has answered: where it accepts connections and answers nothing, no call
            is sent that may have been counted. If they have no time left by then, the next calls are the trial.

The pause is short again only after 5 s closed. A call's own deadline never opens the breaker.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Protocol

from extauth.counters.waiting import within
from extauth.errors import StoreError
from extauth.limiter.counters import Group, GuardedCounters, TakeResult, Uncounted

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
SETTLED_S = 5.0
TRIAL_CALLS = 32
TRIAL_WAIT_S = 0.005


class BreakerState(StrEnum):
    """Whether the store is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


_WORST_FIRST = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)


def worst(states: Iterable[BreakerState]) -> BreakerState:
    """Open if any is, else half-open if any is; closed where there are none."""
    return min(states, key=_WORST_FIRST.index, default=BreakerState.CLOSED)


class Store(GuardedCounters, Protocol):
    """The store behind a breaker; it may leave groups uncounted that another server should have counted."""

    async def connect(self) -> None:
        """As `limiter.counters.Counters`."""
        ...

    async def probe(self) -> None:
        """As `limiter.counters.Counters`."""
        ...


class Guard(Protocol):
    """What decides whether the store is asked."""

    @property
    def state(self) -> BreakerState:
        """Whether the store is asked, and all of it where it is several servers."""

    @property
    def registry_state(self) -> BreakerState:
        """Whether the server is asked that has the replicas' heartbeats."""

    @property
    def cause(self) -> StoreError | None:
        """Why the store failed last."""

    async def look(self) -> None:
        """Ask the store where no call does: to learn that it fails before a call must, and that it works again."""
        ...

    async def aclose(self) -> None:
        """Give up what goes on in the background."""
        ...


class Breaker:
    """`limiter.counters.GuardedCounters` that stop asking `counters` while these fail.

    `changed` is called after each change of `state`, and `failed` for each batch, trial and probe that the store fails.
    `cause` is why it failed last. An error that is no StoreError opens nothing: the fault may be one batch's own.
    `clock` gives seconds; `chance` a number from 0 to 1.
    """

    def __init__(
        self,
        counters: Store,
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[StoreError], None] = lambda _error: None,
        *,
        clock: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.state = BreakerState.CLOSED
        self.cause: StoreError | None = None
        self._counters = counters
        self._changed = changed
        self._on_failed = failed
        self._clock = clock
        self._chance = chance
        self._pause_s = FIRST_PAUSE_S
        self._closed_at = float("-inf")
        self._next_trial = float("-inf")
        self._tried = False  # since the last look
        self._trial: asyncio.Task[None] | None = None

    @property
    def registry_state(self) -> BreakerState:
        """As Guard; it is the only server."""
        return self.state

    async def take(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """As GuardedCounters say."""
        if self.state is BreakerState.CLOSED:
            try:
                return await self._counters.take(groups)
            except StoreError as error:
                self._failed(error)
                raise
            except Exception as error:
                unexpected = StoreError.unexpected(error)
                self._on_failed(unexpected)
                raise unexpected from error
        if self.state is BreakerState.OPEN and self._clock() >= self._next_trial:
            return await self._try(groups)
        return [Uncounted.UNSENT] * len(groups)

    def retry(self) -> None:
        """Let the next batch be a trial: there is reason to think that the store is back."""
        self._next_trial = self._clock()

    async def look(self) -> None:
        """Ask the store where no call does: to learn that it fails before a call must, and that it works again."""
        tried, self._tried = self._tried, False
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.OPEN and tried):
            return
        trial = self.state is BreakerState.OPEN
        if trial:
            self._become(BreakerState.HALF_OPEN)
        try:
            await self._counters.probe()
        except StoreError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a store that cannot be probed does not count
            self._failed(StoreError.unexpected(error))
        else:
            if trial:
                self._close()

    async def aclose(self) -> None:
        """Give up a trial that is under way."""
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.gather(self._trial, return_exceptions=True)

    async def _try(self, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """Ask for the first calls, and once these are counted for the others."""
        first, rest = _split(groups)
        self._tried = True
        self._become(BreakerState.HALF_OPEN)
        trial = _Trial(first)
        task = self._trial = asyncio.create_task(self._take_trial(trial))
        trial.given_up = not await within(task, TRIAL_WAIT_S)
        takens = trial.takens
        if takens is None:
            return [Uncounted.of(sent=trial.sent)] * len(first) + [Uncounted.UNSENT] * (len(groups) - len(first))
        if not rest:
            return takens
        more: Sequence[TakeResult | Uncounted]
        try:
            more = await self.take(rest)
        except StoreError as error:
            more = [Uncounted.of(sent=error.sent)] * len(rest)
        if len(takens) + len(more) == len(groups):
            return [*takens, *more]
        *others, cut = takens  # the calls of one group are in both
        begun = more[0]
        if isinstance(begun, Uncounted) or isinstance(cut, Uncounted):
            return [*others, Uncounted.SENT, *more[1:]]  # the trial's part of them is counted
        return [*others, cut._replace(admitted=cut.admitted + begun.admitted), *more[1:]]

    async def _take_trial(self, trial: "_Trial") -> None:
        try:
            await self._counters.connect()
            if trial.given_up:
                self._next_trial = self._clock()
                self._become(BreakerState.OPEN)
                return
            trial.sent = True
            trial.takens = await self._counters.take(trial.groups)
        except StoreError as error:
            trial.sent = error.sent
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the store does not count
            self._failed(StoreError.unexpected(error))
        else:
            self._close()

    def _failed(self, error: StoreError) -> None:
        self.cause = error.with_traceback(None)
        self._on_failed(error)
        if self.state is BreakerState.OPEN:
            self._changed()
            return
        now = self._clock()
        if self.state is BreakerState.CLOSED and now - self._closed_at >= SETTLED_S:
            self._pause_s = FIRST_PAUSE_S
        else:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._next_trial = now + self._pause_s * (1 - self._chance() / 2)
        self._become(BreakerState.OPEN)

    def _close(self) -> None:
        self._closed_at = self._clock()
        self._become(BreakerState.CLOSED)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._changed()


@dataclass
class _Trial:
    """The groups of a trial. `given_up`: they have had their answers. `sent`: the store may have counted them."""

    groups: Sequence[Group]
    given_up: bool = False
    sent: bool = False
    takens: Sequence[TakeResult | Uncounted] | None = None


def _split(groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """The first TRIAL_CALLS calls, and the others."""
    first: list[Group] = []
    left = TRIAL_CALLS
    for i, group in enumerate(groups):
        if group.calls > left:
            if left:
                first.append(Group(group.take, left))
            return first, [Group(group.take, group.calls - left), *groups[i + 1 :]]
        first.append(group)
        left -= group.calls
    return first, []
