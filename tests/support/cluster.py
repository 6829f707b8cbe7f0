"""A Redis Cluster of real servers on ports of 127.0.0.1: masters, and a replica of each."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from scripts.stack import free_ports
from tests.support.sentinels import Server
from tests.support.wait import until

SLOTS = 16384
NODE_TIMEOUT_MS = 500
PARTLY = ("--cluster-require-full-coverage", "no")
"""Options of nodes that serve their own slots while nobody serves others."""


class Node(Server):
    """A node of a cluster."""

    def __init__(self, program: str, folder: Path, *arguments: str) -> None:
        (self.bus_port,) = free_ports(1)  # else it is the other port + 10000, which may be none
        super().__init__(program, folder, *arguments)

    @property
    def address(self) -> str:
        """Its address, as messages have it."""
        return f"127.0.0.1:{self.port}"

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return text(self.command("CLUSTER", "MYID"))

    @property
    def is_master(self) -> bool:
        """Whether it says so."""
        return text(self.command("ROLE")[0]) == "master"

    def cluster_info(self) -> dict[str, str]:
        """What CLUSTER INFO says."""
        told = self.command("CLUSTER", "INFO")
        if isinstance(told, dict):
            return {text(name): text(value) for name, value in told.items()}
        return dict(line.split(":", 1) for line in text(told).splitlines() if ":" in line)

    def runs(self) -> int:
        """How many scripts it has run, without those that it refused."""
        stats = self.command("INFO", "commandstats")
        return sum(
            int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))
            - int(stats.get(f"cmdstat_{name}", {}).get("failed_calls", 0))
            for name in ("evalsha", "eval")
        )

    def _options(self) -> list[str | Path]:
        own = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        own += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"]
        own += ["--repl-diskless-sync-delay", "0"]
        return [*super()._options(), *own]


class RealCluster:
    """`masters` masters that share the slots out evenly, each with a replica unless `replicas` is false."""

    def __init__(
        self, program: str, folder: Path, *, masters: int = 3, replicas: bool = True, options: Sequence[str] = ()
    ) -> None:
        self.masters = [Node(program, folder / f"m{i}", *options) for i in range(masters)]
        self.replicas = [Node(program, folder / f"r{i}", *options) for i in range(masters)] if replicas else []

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return [*self.masters, *self.replicas]

    @property
    def hosts(self) -> str:
        """The nodes that began as masters, as a URL has them."""
        return ",".join(node.address for node in self.masters)

    @property
    def url(self) -> str:
        """The URL for extauth."""
        return f"redis+cluster://{self.hosts}"

    def start(self) -> Self:
        """Start them, and return once each knows all, and replicas follow their masters."""
        for node in self.nodes:
            node.start()
        first, *others = self.nodes
        for i, master in enumerate(self.masters):
            begin, end = (n * SLOTS // len(self.masters) for n in (i, i + 1))
            master.command("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
            master.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in others:
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        until(lambda: all(self._is_well(node) for node in self.masters), self.views)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            until(lambda replica=replica, master=master: self._knows(replica, master), self.views)  # type: ignore[misc]
            replica.command("CLUSTER", "REPLICATE", master.id)
        self.until_well()
        return self

    def until_well(self) -> None:
        """Wait until all nodes say that all is well, and each master has a replica that may take over."""
        until(lambda: all(self._is_well(node) for node in self.nodes), self.views)
        until(lambda: all(self._knows_replicas(node) for node in self.masters), self.views)
        for replica in self.replicas:
            until(lambda replica=replica: self._follows(replica), self.views)  # type: ignore[misc]

    def owns(self, node: Node, slot: int) -> bool:
        """Whether a node says that it serves a slot."""
        return self._has_slot(node, slot, node)

    def stop(self) -> None:
        """End all that run."""
        for node in self.nodes:
            node.stop()

    def owner(self, slot: int) -> Node:
        """The master of a slot, as long as nothing was moved."""
        return self.masters[next(i for i in range(len(self.masters)) if slot < (i + 1) * SLOTS // len(self.masters))]

    def begin_to_move(self, slot: int, source: Node, target: Node) -> None:
        """Have a slot be on its way."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: Node, target: Node, at_most: int = 1_000_000) -> int:
        """Move keys of a slot that is on its way; returns how many."""
        keys = source.command("CLUSTER", "GETKEYSINSLOT", slot, at_most)
        if keys:
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        return len(keys)

    def finish_move(self, slot: int, source: Node, target: Node) -> None:
        """Have the target own the slot, once it has all of its keys."""
        while self.move_keys(slot, source, target):
            pass
        for node in (target, source, *[each for each in self.masters if each not in {source, target}]):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move_back(self, slot: int, source: Node, target: Node) -> None:
        """Have a slot be where it was, whatever became of its move."""
        if self._has_slot(target, slot, target):
            for node in self.masters:
                node.command("CLUSTER", "SETSLOT", slot, "STABLE")
            return
        self.begin_to_move(slot, source, target)
        self.finish_move(slot, source, target)

    def until_failed_over(self, replica: Node, alive: Sequence[Node]) -> float:
        """Wait until most masters know that a replica has become one; returns when, on time.monotonic."""

        def elected() -> bool:
            return replica.is_master and sum(self._has_slots(node, replica) for node in alive) * 2 > len(self.masters)

        until(elected, self.views, every_s=0.01)
        return time.monotonic()

    def views(self) -> str:
        """What each node that runs knows, and its log's end."""
        return "\n\n".join(
            f"{node.address}\n{text(node.command('CLUSTER', 'NODES'))}\n{(node.folder / 'log').read_text()[-1500:]}"
            for node in self.nodes
            if node.running
        )

    def _is_well(self, node: Node) -> bool:
        info = node.cluster_info()
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes)

    def _follows(self, replica: Node) -> bool:
        info = replica.command("INFO", "replication")
        return (info.get("role"), info.get("master_link_status")) == ("slave", "up")

    def _knows(self, node: Node, other: Node) -> bool:
        return other.id in text(node.command("CLUSTER", "NODES"))

    def _knows_replicas(self, node: Node) -> bool:
        lines = text(node.command("CLUSTER", "NODES"))
        return lines.count("slave") == len(self.replicas)

    def _has_slot(self, node: Node, slot: int, owner: Node) -> bool:
        return any(
            each[0] <= slot <= each[1] and int(each[2][1]) == owner.port for each in node.command("CLUSTER", "SLOTS")
        )

    def _has_slots(self, node: Node, owner: Node) -> bool:
        return any(int(each[2][1]) == owner.port for each in node.command("CLUSTER", "SLOTS"))


StartCluster = Callable[..., RealCluster]
"""Starts a cluster with the options of RealCluster, the program aside."""


def text(value: Any) -> str:  # noqa: ANN401 - whatever a client makes of a reply
    """A reply as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
