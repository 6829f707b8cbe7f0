"""Slots of Redis Cluster, and what its nodes say of who serves them."""

import re
from binascii import crc_hqx
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from extauth.counters.redis.server import Address

SLOTS: Final = 16384
MAX_MASTERS: Final = 1000
"""What Redis Cluster is made for; each costs a connection."""

_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}")


def slot_of(name: bytes) -> int:
    """The slot of a key: that of its hash tag, where it has one."""
    begin = name.find(b"{") + 1
    end = name.find(b"}", begin) if begin else -1
    return crc_hqx(name[begin:end] if end > begin else name, 0) % SLOTS


class Span(NamedTuple):
    """The slots from `first` to `last`, and the master that serves them."""

    first: int
    last: int
    master: Address


class SlotMap:
    """Who serves which slot. `nodes` are the addresses of all nodes, replicas among them."""

    def __init__(self, spans: Iterable[Span] = (), nodes: Iterable[Address] = ()) -> None:
        self.spans = tuple(sorted(spans))
        self.nodes = frozenset(nodes)
        self._firsts = [span.first for span in self.spans]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and (self.spans, self.nodes) == (other.spans, other.nodes)

    def __hash__(self) -> int:
        return hash(self.spans)

    @property
    def masters(self) -> set[Address]:
        """Those that serve a slot."""
        return {span.master for span in self.spans}

    def master_of(self, slot: int) -> Address | None:
        """The master that serves a slot; None where nobody does."""
        at = bisect_right(self._firsts, slot) - 1
        return self.spans[at].master if at >= 0 and slot <= self.spans[at].last else None


def read_slots(reply: Any, asked: Address) -> SlotMap:  # noqa: ANN401 - whatever Redis replies
    """What CLUSTER SLOTS said, of which `asked` was asked; raises ValueError where it cannot be.

    A node that does not know its own address leaves it out: it is the one that was asked.
    """
    spans: list[Span] = []
    nodes: set[Address] = set()
    known: dict[tuple[object, object], Address | None] = {}  # few nodes serve many spans

    def address(member: Sequence[Any]) -> Address | None:
        key = member[0], member[1]
        if key not in known:
            known[key] = _address(member, asked)
        return known[key]

    try:
        for first, last, *members in reply:
            addresses = [address(member) for member in members]
            nodes.update(address for address in addresses if address is not None)
            if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < SLOTS):
                raise ValueError  # noqa: TRY301 - as what else may be wrong with it raises
            if addresses and addresses[0] is not None:
                spans.append(Span(first, last, addresses[0]))
        if len({span.master for span in spans}) > MAX_MASTERS:
            raise ValueError  # noqa: TRY301
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ValueError("a reply to CLUSTER SLOTS that makes no sense") from None
    return SlotMap(spans, nodes)


def agreed(views: Sequence[SlotMap], before: SlotMap) -> SlotMap:
    """What more than half of the views say of each slot, and where they do not agree, what was known `before`."""
    told = [view for view in views if view.spans]  # a node that was reset knows nothing
    if not told:
        return before
    nodes = frozenset().union(*(view.nodes for view in told))
    if all(view.spans == told[0].spans for view in told):
        return SlotMap(told[0].spans, nodes)
    edges = {edge for view in told for first, last, _ in view.spans for edge in (first, last + 1)}
    spans: list[Span] = []
    for first, end in pairwise(sorted({0, SLOTS, *edges})):
        (master, votes), *_ = Counter(view.master_of(first) for view in told).most_common(1)
        if 2 * votes <= len(told):
            master = before.master_of(first)
        if master is None:
            continue
        if spans and spans[-1].last + 1 == first and spans[-1].master == master:
            spans[-1] = spans[-1]._replace(last=end - 1)
        else:
            spans.append(Span(first, end - 1, master))
    return SlotMap(spans, nodes)


def redirection(error: str, asked: Address) -> Address | None:
    """Where `MOVED SLOT HOST:PORT` or `ASK SLOT HOST:PORT` points to; None where that is no address."""
    place = error.split(" ")[2] if error.count(" ") >= 2 else ""
    host, _, port = place.rpartition(":")
    return _valid(host or asked.host, port)


def _address(member: Sequence[Any], asked: Address) -> Address | None:
    host = member[0].decode() if isinstance(member[0], bytes) else member[0]
    if member[1] == 0:
        return None
    return _valid(host or asked.host, str(member[1]))


def _valid(host: str, port: str) -> Address | None:
    if not _HOST.fullmatch(host) or not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 2**16:
        return None
    return Address(host, int(port))
