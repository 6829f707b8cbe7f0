"""A master, its replica and three sentinels that watch them: real servers, on ports of 127.0.0.1."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis

from scripts.stack import free_ports
from tests.support.stores import Store
from tests.support.wait import until

MASTER = "mymaster"
SENTINELS = 3
DOWN_AFTER_MS = 500
# What takes seconds otherwise, by SENTINEL DEBUG of Redis 7. They reckon with several of some of these periods: where
# they are shorter, a busy machine is taken for a replica that will not do, or for one that became a master by itself.
_QUICK = {"info-period": 200, "ping-period": 200, "publish-period": 500, "ask-period": 200}


class Server(Store):
    """A server with a port too."""

    def __init__(self, program: str, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True)
        (self.port,) = free_ports(1)  # not one of those that outgoing connections take
        super().__init__(program, folder, "--bind", "127.0.0.1", *self._ports(arguments), *arguments)

    def _ports(self, arguments: Sequence[str]) -> tuple[str, ...]:
        return ("--tls-port" if "--tls-cert-file" in arguments else "--port", str(self.port))

    def command(self, *command: str | int) -> Any:  # noqa: ANN401 - whatever it replies
        """Run a command there, as the default user."""
        with redis.Redis.from_url(self.url, protocol=2) as client:
            return client.execute_command(*command)


class RealSentinel(Server):
    """A sentinel of a master; `lines` are further ones of its configuration, `password` its default user's."""

    def __init__(
        self, program: str, folder: Path, master_port: int, lines: Sequence[str], password: str, *arguments: str
    ) -> None:
        super().__init__(program, folder, *arguments)
        if password:
            self.url = f"unix://:{password}@{self.socket}"
        self._lines = [
            *([f"requirepass {password}"] if password else []),
            f"sentinel monitor {MASTER} 127.0.0.1 {master_port} 2",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 3000",
            *lines,
        ]

    def _options(self) -> list[str | Path]:
        config = self.folder / "sentinel.conf"  # which it rewrites
        config.write_text("".join(f"{line}\n" for line in self._lines))
        return [config, "--sentinel", *super()._options()]


class Trio:
    """Three sentinels of the master at a port; `lines`, `password` and `options` are as RealSentinel has them."""

    def __init__(
        self,
        program: str,
        folder: Path,
        master_port: int,
        *,
        lines: Sequence[str] = (),
        password: str = "",
        options: Sequence[str] = (),
    ) -> None:
        self.sentinels = [
            RealSentinel(program, folder / f"s{i}", master_port, lines, password, *options) for i in range(SENTINELS)
        ]

    @property
    def hosts(self) -> str:
        """The sentinels, as a URL has them."""
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    def start(self) -> Self:
        """Start them, and return once each knows of all others and of one replica."""
        for each in self.sentinels:
            each.start()
            self.ask(each, "DEBUG", *(word for pair in _QUICK.items() for word in pair))
        until(lambda: all(self._knows_all(each) for each in self.sentinels))
        return self

    def stop(self) -> None:
        """End them."""
        for each in self.sentinels:
            each.stop()

    def fail_over(self) -> None:
        """Have the first one make a replica the master, as an operator does."""
        self.ask(self.sentinels[0], "FAILOVER", MASTER)

    def ask(self, sentinel: RealSentinel, *command: str | int) -> Any:  # noqa: ANN401
        """Run SENTINEL … there."""
        return sentinel.command("SENTINEL", *command)

    def until_switched(self, port: int) -> float:
        """Wait until most sentinels say that the master is at this port; returns when, on time.monotonic."""

        def switched() -> bool:
            said = [self.ask(each, "GET-MASTER-ADDR-BY-NAME", MASTER) for each in self.sentinels]
            return sum(int(each[1]) == port for each in said) > SENTINELS / 2

        until(switched, lambda: [(each.folder / "log").read_text() for each in self.sentinels], every_s=0.01)
        return time.monotonic()

    def until_replica_is_known(self, port: int) -> None:
        """Wait until each sentinel has a replica at this port that could become the master."""
        until(lambda: all(self._has_good_replica(each, port) for each in self.sentinels))

    def _knows_all(self, sentinel: RealSentinel) -> bool:
        facts = _facts(self.ask(sentinel, "MASTER", MASTER))
        return (int(facts["num-other-sentinels"]), int(facts["num-slaves"])) == (SENTINELS - 1, 1)

    def _has_good_replica(self, sentinel: RealSentinel, port: int) -> bool:
        replicas = [_facts(each) for each in self.ask(sentinel, "REPLICAS", MASTER)]
        return any(
            (int(each["port"]), each["flags"], each["master-link-status"]) == (port, "slave", "ok") for each in replicas
        )


class Watched:
    """A master, its replica, and their sentinels; `options` are the servers' own."""

    def __init__(
        self,
        program: str,
        folder: Path,
        *,
        options: Sequence[str] = (),
        sentinel_options: Sequence[str] = (),
        sentinel_lines: Sequence[str] = (),
        password: str = "",
    ) -> None:
        self.master, self.replica = (Server(program, folder / name, *options) for name in "ab")
        self.trio = Trio(
            program, folder, self.master.port, lines=sentinel_lines, password=password, options=sentinel_options
        )

    def start(self) -> Self:
        """Start them, and return once each sentinel knows of all others and of the replica."""
        self.master.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)
        until(lambda: self.replica.command("INFO", "replication").get("master_link_status") == "up")
        self.trio.start()
        self.trio.until_replica_is_known(self.replica.port)
        return self

    def stop(self) -> None:
        """End all that run."""
        self.trio.stop()
        self.replica.stop()
        self.master.stop()

    def until_switched(self) -> float:
        """Wait until most sentinels say that the replica is the master; returns when, on time.monotonic."""
        return self.trio.until_switched(self.replica.port)


def _facts(state: Any) -> dict[str, str]:  # noqa: ANN401 - a list of names and values, or redis-py's mapping of them
    """What SENTINEL MASTER or one of SENTINEL REPLICAS says."""
    pairs = state.items() if isinstance(state, dict) else zip(state[::2], state[1::2], strict=True)

    def text(each: object) -> str:
        return each.decode() if isinstance(each, bytes) else str(each)

    return {text(name): text(value) for name, value in pairs}
