"""Finds out whether this replica alone is cut off from the store.

Where the store is away for all replicas, each is as good as any other. Where another one still reaches it, calls are
counted better there: then this one is cut off.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from extauth.counters.breaker import BreakerState

REACHED_FOR_S = 2.0
ASK_EVERY_S = 0.5
ASK_AT_MOST = 16

Ask = Callable[[str], Awaitable[bool]]


class CutOff:
    """`known` returns the addresses of other replicas, and `ask` whether the store answers the one at an address.

    Others must have answered so for REACHED_FOR_S while the breaker was open. Replicas do not notice all at once that
    the store is away, nor that it is back: a single answer may come from one that is only later or earlier than this
    one. `changed` is called whenever `cut_off` has changed. `clock` gives seconds.
    """

    def __init__(
        self,
        known: Callable[[], Sequence[str]],
        ask: Ask,
        changed: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.cut_off = False
        self._known = known
        self._ask = ask
        self._changed = changed
        self._clock = clock
        self._opening: object | None = None  # of the breaker, while it is not closed
        self._reached_since: float | None = None
        self._opened = asyncio.Event()

    def breaker_changed(self, state: BreakerState) -> None:
        """Follow the breaker: once it is closed, this replica is not cut off."""
        if state is BreakerState.CLOSED:
            self._opening = self._reached_since = None
            self._opened.clear()
            self._become(cut_off=False)
        elif self._opening is None:
            self._opening = object()
            self._opened.set()

    async def keep_looking(self) -> None:
        """Look again and again for ever, while the breaker is open."""
        while True:
            await self._opened.wait()
            await self.look()
            await asyncio.sleep(ASK_EVERY_S)

    async def look(self) -> None:
        """Ask some of the other replicas, if the breaker is not closed."""
        opening, asked_s = self._opening, self._clock()
        if opening is None:
            return
        known = list(dict.fromkeys(self._known()))
        asked = random.sample(known, min(len(known), ASK_AT_MOST))
        reached = await _any(self._ask, asked)
        if self._opening is not opening:  # the breaker closed meanwhile
            return
        if not reached:
            self._reached_since = None
        elif self._reached_since is None:
            self._reached_since = asked_s
        since = self._reached_since
        self._become(cut_off=since is not None and self._clock() - since >= REACHED_FOR_S)

    def _become(self, *, cut_off: bool) -> None:
        if cut_off != self.cut_off:
            self.cut_off = cut_off
            self._changed()


async def _any(ask: Ask, addresses: Sequence[str]) -> bool:
    """Whether one of them is reached by the store; returns with the first that is."""
    asking = [asyncio.ensure_future(ask(address)) for address in addresses]
    try:
        for answer in asyncio.as_completed(asking):
            if await answer:
                return True
        return False
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
