"""Which masters a cluster has, and which of them serves which slot, as its nodes say.

- A few of the masters are asked: what more than half of the answers say of a slot holds. So a node that has not heard
  of a fail-over yet, or that was cut off, is outvoted. Where fewer than two masters answer, replicas and the nodes of
  the URL are asked, too.
- They are asked when a call was redirected, again and again while something is wrong with a master, and else slowly.
  Where calls are redirected without end, as by two nodes that take each other for the master, and nobody else comes to
  serve any slot, they are asked less and less often.
- A master is connected to as one, and refused where it says that it is a replica.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from extauth.counters.redis.cluster.master import Master, MasterOptions
from extauth.counters.redis.cluster.node import ClusterNode, ask, ask_once
from extauth.counters.redis.cluster.slots import SLOTS, SlotMap, agreed, slot_of
from extauth.counters.redis.cluster.url import ClusterUrl
from extauth.counters.redis.greeting import Greeting
from extauth.counters.redis.server import Address, pool
from extauth.errors import StoreError

STEADY_S: Final = 10.0
TROUBLED_S: Final = 0.1
LEAST_PAUSE_S: Final = 0.03
SPAN_PAUSE_S: Final = 0.0002
"""For each span of slots: to read what five nodes say of it takes up to a tenth of that."""
FIRST_REDIRECTED_S, LONGEST_REDIRECTED_S, SETTLED_S = 0.03, 2.0, 5.0
"""How long redirected calls do not have the nodes asked again: twice as long each time, until none came for a while."""
ANSWERS_WITHIN_S: Final = 0.5
MOST_ASKED: Final = 5
SPLIT_S: Final = 1.0
AWAY_S: Final = 1.0
MOST_REDIRECTED: Final = 64
MOST_KNOWN: Final = 10_000
"""Beginnings of names whose master is remembered."""


class Topology:
    """The masters of the cluster of a URL. Raises SettingsError where an option of the URL will not do.

    `clock` gives seconds. `changed` is called when others serve the slots, and `troubled` returns whether something is
    wrong with a master.
    """

    def __init__(self, url: ClusterUrl, options: MasterOptions, *, clock: Callable[[], float] = monotonic) -> None:
        self.map = SlotMap()
        self.masters: dict[Address, Master] = {}
        self.changed: Callable[[], None] = lambda: None
        self.troubled: Callable[[], bool] = lambda: False
        self.failure: StoreError | None = None
        self._any_mode = False
        self._seeds = url.addresses
        self._pool = pool(url.node_url, {})
        self._options = options
        self._clock = clock
        self._redirected: dict[Address, Master] = {}  # to which calls were sent, and which are no known masters
        self._split: dict[int, float] = {}  # slots, and until when that is believed
        self._away: dict[Address, float] = {}  # to which calls were sent in vain, and until when they are not again
        self._redirected_pause_s = FIRST_REDIRECTED_S
        self._redirected_until = float("-inf")
        self._by_head: dict[bytes, Master | None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def where(self) -> str:
        """The nodes of the URL, for messages."""
        shown = ", ".join(map(str, self._seeds[:MOST_ASKED]))
        return shown + (f" and {len(self._seeds) - MOST_ASKED} more" if len(self._seeds) > MOST_ASKED else "")

    def master_of(self, name: bytes) -> Master | None:
        """The master that serves the slot of a counter; None where nobody does, or it is not known yet."""
        end = name.find(b"}")
        head = name[:end] if end >= 0 else name
        try:
            return self._by_head[head]
        except KeyError:
            address = self.map.master_of(slot_of(name))
            master = None if address is None else self.masters[address]
            if end >= 0 and len(self._by_head) < MOST_KNOWN:  # else the rest of the name belongs to it
                self._by_head[head] = master
            return master

    def unserved(self) -> int:
        """The number of slots that no master serves."""
        return SLOTS - sum(last - first + 1 for first, last, _ in self.map.spans)

    def at(self, address: Address) -> Master:
        """The master at an address to which a call was redirected."""
        master = self.masters.get(address) or self._redirected.get(address)
        if master is None:
            node = ClusterNode(self._pool, address, master=True, any_mode=lambda: self._any_mode)
            master = self._redirected[address] = self.make(node)
            if len(self._redirected) > MOST_REDIRECTED:
                self._close([self._redirected.pop(next(iter(self._redirected)))])
        return master

    def make(self, node: ClusterNode) -> Master:
        """The master that a node is."""
        return Master(node, self._options)

    def note_away(self, address: Address) -> None:
        """Note that what is at an address to which a call was redirected did not answer."""
        if len(self._away) >= MOST_REDIRECTED:
            self._away.clear()
        self._away[address] = self._clock() + AWAY_S

    def is_away(self, address: Address) -> bool:
        """Whether what is at an address did not answer a redirected call a moment ago."""
        return bool(self._away) and self._away.get(address, 0.0) >= self._clock()

    def refresh_soon(self) -> None:
        """Have the nodes asked who serves which slot, in the background."""
        self._wanted.set()

    def note_redirected(self) -> None:
        """Note that a call was redirected: have the nodes asked, unless they have been just now for the same reason."""
        now = self._clock()
        if now < self._redirected_until:
            return
        settled = now - self._redirected_until >= SETTLED_S
        self._redirected_pause_s = (
            FIRST_REDIRECTED_S if settled else min(2 * self._redirected_pause_s, LONGEST_REDIRECTED_S)
        )
        # So that not all replicas come at once.
        self._redirected_until = now + self._redirected_pause_s * (1 - random.random() / 2)  # noqa: S311
        self.refresh_soon()

    def note_split(self, name: bytes) -> None:
        """Note that the slot of this key is moving, and has keys on both sides."""
        self._split[slot_of(name)] = self._clock() + SPLIT_S

    def is_split(self, name: bytes) -> bool:
        """Whether the slot of this key had keys on two masters a moment ago."""
        return bool(self._split) and self._split.get(slot_of(name), 0.0) >= self._clock()

    async def refresh(self) -> None:
        """Ask the nodes; raises StoreError where none answers. Those who ask at a time share the answers."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def aclose(self) -> None:
        """Close all connections; commands under way fail."""
        for task in (self._keeping, self._refreshing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for master in (*self.masters.values(), *self._redirected.values()):
            await master.pipe.aclose()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TROUBLED_S if self.troubled() else STEADY_S):
                    await self._wanted.wait()
            self._wanted.clear()
            with suppress(Exception):  # whoever needs an answer asks, too, and is told what is wrong
                await self.refresh()
            await asyncio.sleep(LEAST_PAUSE_S + SPAN_PAUSE_S * len(self.map.spans))

    async def _refresh(self) -> None:
        live = [master for master in self.masters.values() if master.pipe.connected]
        asked = random.sample(live, min(len(live), MOST_ASKED))
        views, errors = await _answers([ask(master.pipe, master.address) for master in asked])
        if len(views) < 2:
            others = list({*self._seeds, *self.map.nodes} - {master.address for master in asked})
            asked_once = random.sample(others, min(len(others), MOST_ASKED))
            more, more_errors = await _answers([ask_once(self._pool, address, self._greeted) for address in asked_once])
            views, errors = views + more, errors + more_errors
        views = [view for view in views if view.spans]
        if not views:
            self.failure = _nobody(self.where, errors)
            raise self.failure
        self.failure = None
        self._apply(agreed(views, self.map))

    def _apply(self, map_: SlotMap) -> None:
        if map_ == self.map and not self._redirected:
            return
        before, self.map = self.map, map_
        wanted = map_.masters
        gone = [master for address, master in self.masters.items() if address not in wanted]
        gone += [master for address, master in self._redirected.items() if address not in wanted]
        self.masters = {address: self.at(address) for address in sorted(wanted)}
        self._redirected = {}
        self._by_head.clear()
        self._close(gone)
        if map_.spans != before.spans:
            self._redirected_until = float("-inf")  # the redirections before had an end
            self.changed()

    def _close(self, masters: Sequence[Master]) -> None:
        for master in masters:
            task = asyncio.create_task(master.pipe.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _greeted(self, _where: str, greeting: Greeting) -> None:
        self._any_mode = self._any_mode or greeting.mode == "standalone"


async def _answers(asking: Sequence[Coroutine[Any, Any, SlotMap]]) -> tuple[list[SlotMap], list[StoreError]]:
    """Those that come in time, and what went wrong with the others."""
    tasks = [asyncio.create_task(each) for each in asking]
    if tasks:
        await asyncio.wait(tasks, timeout=ANSWERS_WITHIN_S)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    views = [each for each in ended if isinstance(each, SlotMap)]
    return views, [each for each in ended if isinstance(each, StoreError)]


def _nobody(where: str, errors: Sequence[StoreError]) -> StoreError:
    if not errors:
        return StoreError(
            "reply", f"no node of the Redis Cluster says which masters serve its slots ({where})", sent=False
        )
    kinds = {error.kind for error in errors}
    reasons = "; ".join(sorted({str(error) for error in errors})[:MOST_ASKED])
    message = f"no node of the Redis Cluster says where its masters are: {reasons}"
    return StoreError("reply" if "reply" in kinds else "connection", message, sent=False)
