"""Where counters lie: all on one server, or by their shards on the masters of a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from extauth.counters.redis.cluster.slots import SLOTS, SlotMap, Span, slot_of
from extauth.counters.redis.server import Address
from extauth.limiter.counter_names import SHARDS, tags


@dataclass(frozen=True)
class Layout:
    """So many `masters` of a cluster, and the shard of each counter; without shards it is one server, and no cluster.

    The slots are shared out evenly.
    """

    masters: int = 1
    shards: Mapping[bytes, int] = field(default_factory=dict)

    @property
    def is_cluster(self) -> bool:
        """Whether it is a cluster."""
        return bool(self.shards)

    @cached_property
    def slots(self) -> SlotMap:
        """Which master serves which slot."""
        edges = [SLOTS * master // self.masters for master in range(self.masters + 1)]
        return SlotMap([Span(edges[i], edges[i + 1] - 1, address_of(i)) for i in range(self.masters)])

    def name(self, counter: bytes) -> bytes:
        """The name of a counter in the store; an object of its own, so that it is known which request brings it."""
        if not self.shards:
            return bytes(bytearray(counter))
        return b"x:{%b}:%b" % (tags(SHARDS)[self.shards[counter]].encode(), counter)

    def master_of(self, name: bytes) -> int:
        """The number of the master that serves the slot of a name; 0 where there is one server."""
        address = self.slots.master_of(slot_of(name)) if self.shards else None
        return 0 if address is None else number_of(address)

    def shard_of(self, name: bytes) -> object:
        """What stands for the shard of a name."""
        return slot_of(name) if self.shards else None


ONE_SERVER = Layout()


def address_of(master: int) -> Address:
    """The address of a master."""
    return Address(f"master-{master}", 6379)


def number_of(address: Address) -> int:
    """The number of the master at an address, as above."""
    return int(address.host.removeprefix("master-"))
