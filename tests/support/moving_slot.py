"""A slot that moves from one master of a real cluster to another."""

import secrets

from extauth.counters.redis.cluster.slots import slot_of
from extauth.limiter.counter_names import SHARDS, tags
from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.cluster import Node, RealCluster
from tests.support.takes import take

LIMIT = Limit(10, Unit.HOUR, Algorithm.GCRA)


class MovingSlot:
    """The slot of a shard, with names that no other test uses, on its way from `source` to `target`."""

    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster
        self._begin = f"moving:{{{secrets.choice(tags(SHARDS))}}}{secrets.token_hex(8)}".encode()
        self.number = slot_of(self._begin)
        self.source = cluster.owner(self.number)
        self.target = next(node for node in cluster.masters if node is not self.source)

    def name(self, which: str) -> bytes:
        return self._begin + which.encode()

    def group(self, *which: str, calls: int = 1) -> Group:
        return Group(take(*((self.name(each), LIMIT, 1) for each in which)), calls)

    def begin(self) -> None:
        self.cluster.begin_to_move(self.number, self.source, self.target)

    def move(self, *which: str) -> None:
        """Move some of its keys."""
        names = [self.name(each) for each in which]
        self.source.command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *names)  # type: ignore[arg-type]

    def finish(self) -> None:
        self.cluster.finish_move(self.number, self.source, self.target)

    def move_back(self) -> None:
        """Have it be where it was, whatever became of its move."""
        self.cluster.move_back(self.number, self.target, self.source)

    def at(self, node: Node) -> set[bytes]:
        """Those of the names that a node has."""
        names = node.command("CLUSTER", "GETKEYSINSLOT", self.number, 1000)
        return {name for name in names if name.startswith(self._begin)}
