"""Where counters lie: all on one server, or by their shards on the masters of a cluster."""

from collections.abc import Mapping, Sequence
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
        """Which master serves which slot, at first."""
        return self.slots_at([0] * self.masters)

    def slots_at(self, hand_overs: Sequence[int]) -> SlotMap:
        """The same once each of the masters was handed over so many times."""
        edges = [SLOTS * master // self.masters for master in range(self.masters + 1)]
        return SlotMap([Span(edges[i], edges[i + 1] - 1, address_of(i, hand_overs[i])) for i in range(self.masters)])

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


def address_of(master: int, hand_overs: int = 0) -> Address:
    """The address of a master that was handed over so many times."""
    return Address(f"master-{master}-{hand_overs}", 6379)


def number_of(address: Address) -> int:
    """The number of the master at an address, as above."""
    return int(address.host.split("-")[1])
