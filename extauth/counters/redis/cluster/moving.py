"""Runs that a master did not run because their slot is, or is about to be, another one's.

MOVED: another master has the slot. The run goes there, and the nodes are asked anew who has which slot.
ASK and TRYAGAIN: the slot is on its way to another master, and some of the run's keys are no longer here, or never
were. Its items then go one by one: in one run where all of an item's keys are on one side, or on neither. A run of
several keys needs each of them to exist at the target: an empty string there stands for a counter that is unused. An
item whose keys are on both sides has no result here: see by_key.py.

An item without a result is Uncounted: UNSENT, unless a server was asked that gave no answer. Where a slot is on its way
to a master that is dead, its items are not sent there for a moment: others in their batch would wait with them.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from extauth.counters.redis.cluster.master import Master
from extauth.counters.redis.cluster.runs import CommandRun, Run
from extauth.counters.redis.cluster.slots import redirection
from extauth.counters.redis.protocol import ReplyError
from extauth.counters.redis.server import Address
from extauth.errors import StoreError
from extauth.limiter.counters import Uncounted

REDIRECTIONS: Final = 3
PLACE_MS: Final = b"60000"  # how long an empty string keeps a place
_NOT_SERVED: Final = "not served"  # of CLUSTERDOWN: this slot is down, and others are not


class Masters(Protocol):
    """The masters of the cluster."""

    def at(self, address: Address) -> Master:
        """The master at an address, known or not."""
        ...

    def note_away(self, address: Address) -> None:
        """Note that the master at an address did not answer."""
        ...

    def is_away(self, address: Address) -> bool:
        """Whether it did not answer a moment ago."""
        ...

    def note_redirected(self) -> None:
        """Have the nodes asked who has which slot, since it is not the one that was asked."""
        ...

    def note_split(self, name: bytes) -> None:
        """Note that the slot of this key has keys on both sides."""
        ...


async def send(masters: Masters, master: Master, runs: Sequence[Run]) -> list[Sequence[Any]]:
    """The results of runs that are sent to their slots' master in one write, wherever they lead.

    Raises StoreError for what is wrong with this master; what is wrong with others leaves items Uncounted.
    """
    results = await master.send(runs)
    led = [i for i, result in enumerate(results) if isinstance(result, ReplyError)]
    if led:
        followed = await asyncio.gather(
            *(_follow(masters, master, runs[i], results[i], REDIRECTIONS) for i in led),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        ran = len(led) < len(results) or not all(isinstance(result, StoreError) for result in followed)
        for i, result in zip(led, followed, strict=True):
            if isinstance(result, StoreError):
                result.sent = result.sent or ran
            if isinstance(result, BaseException):
                raise result
            results[i] = result
    return results  # type: ignore[return-value]  # no ReplyError is left


async def _follow(masters: Masters, master: Master, run: Run, error: ReplyError, left: int) -> Sequence[Any]:
    code = error.code
    if code not in {"MOVED", "ASK", "TRYAGAIN"} and not (code == "CLUSTERDOWN" and _NOT_SERVED in str(error)):
        raise master.refused(error)
    target = redirection(str(error), master.address)
    if not left or code == "CLUSTERDOWN" or (target is None and code != "TRYAGAIN"):
        masters.note_redirected()
        return [Uncounted.UNSENT] * len(run)
    if code == "MOVED" and target is not None:
        masters.note_redirected()
        return await _at(masters, target, run, left - 1)
    if len(run) > 1:
        return await _one_by_one(masters, master, run, left - 1)
    if code == "ASK" and target is not None and len(run.names()) == 1:
        return await _at(masters, target, run, left - 1, asking=True)
    return await _where_its_keys_are(masters, master, run, left - 1)


async def _send_on(
    masters: Masters, target: Address, runs: Sequence[Run], *, asking: bool = False
) -> list[Sequence[Any] | ReplyError]:
    """As Master.send, of the master at an address to which runs were redirected."""
    if masters.is_away(target):
        raise StoreError("connection", f"Redis at {target} did not answer a moment ago", sent=False)
    try:
        return await masters.at(target).send(runs, asking=asking)
    except StoreError as error:
        if error.kind in {"connection", "timeout"}:
            masters.note_away(target)
        raise


async def _at(masters: Masters, target: Address, run: Run, left: int, *, asking: bool = False) -> Sequence[Any]:
    """The results from another master, whose faults are not the first one's."""
    try:
        (result,) = await _send_on(masters, target, [run], asking=asking)
        if isinstance(result, ReplyError):
            return await _follow(masters, masters.at(target), run, result, left)
    except StoreError as error:
        return [Uncounted.of(sent=error.sent)] * len(run)
    return result


async def _one_by_one(masters: Masters, master: Master, run: Run, left: int) -> Sequence[Any]:
    parts = run.parts()
    results = await master.send(parts)
    asked: dict[Address, list[int]] = {}
    for i, result in enumerate(results):
        if isinstance(result, ReplyError) and result.code == "ASK" and len(parts[i].names()) == 1:
            target = redirection(str(result), master.address)
            if target is not None:
                asked.setdefault(target, []).append(i)
    for target, indices in asked.items():  # usually it is one
        try:
            there = await _send_on(masters, target, [parts[i] for i in indices], asking=True)
        except StoreError as error:
            there = [[Uncounted.of(sent=error.sent)] for _ in indices]
        for i, result in zip(indices, there, strict=True):
            results[i] = [Uncounted.UNSENT] if isinstance(result, ReplyError) else result
    items: list[Any] = []
    for part, result in zip(parts, results, strict=True):
        items += await _follow(masters, master, part, result, left) if isinstance(result, ReplyError) else result
    return items


async def _where_its_keys_are(masters: Masters, master: Master, run: Run, left: int) -> Sequence[Any]:
    """Of an item of several keys in a slot that is on its way."""
    names = run.names()
    lengths = await master.pipe.execute_all([CommandRun.of(b"STRLEN", name).pack(b"")[0] for name in names])
    gone = [reply for reply in lengths if isinstance(reply, ReplyError) and reply.code == "ASK"]
    if not gone:
        (result,) = await master.send([run])
        return [Uncounted.UNSENT] * len(run) if isinstance(result, ReplyError) else result
    target = redirection(str(gone[0]), master.address)
    if len(gone) < len(names) or target is None:
        masters.note_split(names[0])
        return [Uncounted.UNSENT] * len(run)
    places = [CommandRun.of(b"SET", name, b"", b"PX", PLACE_MS, b"NX") for name in names]
    try:
        await _send_on(masters, target, places, asking=True)
    except StoreError:
        return [Uncounted.UNSENT] * len(run)
    return await _at(masters, target, run, left, asking=True)
