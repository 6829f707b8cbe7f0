"""Replicas behind a real Envoy, their store, and how they reach it."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

import trustme
import yaml
from redis.asyncio import Redis

from chaos.client import SECOND_KEY
from chaos.load import config
from scripts.stack import Ports, Stack, free_ports
from scripts.stack.render import Edit
from scripts.stack.upstream import UPSTREAM
from tests.support.cluster import PARTLY, RealCluster
from tests.support.proxy import Proxy
from tests.support.sentinels import MASTER, Trio
from tests.support.stores import Store
from tests.support.wait import until_async

ROOT = Path(__file__).resolve().parents[1]
REPLICAS: Final = 2
"""Of a stage, unless a fault asks for more."""
USER, PASSWORD = "u", "p"
NAME: Final = "store.test"  # RFC 6761 §6.2: no resolver knows it
PATIENT_S, PATIENT_REDIS_S = 1.0, 0.5
RESOLVER: Final = "127.0.0.77"
_HERE, _THERE = "127.0.0.2", "127.0.0.3"  # of two stores with the same port
# In a mount namespace of its own a process has other hosts and another resolver.
_MOUNT = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
_SECOND = {"header_name": "x-api-key", "descriptor_key": SECOND_KEY}
_NAMED = ("unshare", "--map-root-user", "--mount", "sh", "-c", _MOUNT)


class Way(StrEnum):
    """How the replicas reach the store."""

    STRAIGHT = "straight"
    PROXIED = "proxied"
    """Each through a proxy of its own."""
    TLS = "tls"
    """As before, and the proxy speaks TLS."""
    NAMED = "named"
    """Straight, by a name."""
    WATCHED = "watched"
    """Straight, to the master that sentinels name; the spare is its replica."""
    CLUSTERED = "clustered"
    """Straight, to the masters of a cluster; the store and the spare are not asked."""
    SPREAD = "spread"
    """As before, and each call has limits on two shards."""

    @property
    def is_clustered(self) -> bool:
        """Whether the store is a cluster."""
        return self in {Way.CLUSTERED, Way.SPREAD}

    @property
    def limits(self) -> int:
        """How many limits each call has."""
        return 2 if self is Way.SPREAD else 1


class Stage:
    """A running stack. `store` is the one that the replicas count in, `spare` another that may take its place.

    Of more than two `replicas` each is told how many there are, and counts for its part of a limit while it counts
    alone. Each has so many `workers`. `patient`: Envoy and the replicas wait for longer than as shipped, on a machine
    that others use too.
    """

    def __init__(
        self,
        folder: Path,
        policy: str,
        way: Way,
        *,
        replicas: int = REPLICAS,
        workers: int = 1,
        patient: bool = False,
    ) -> None:
        self.folder, self.policy, self.way, self.replicas, self.workers = folder, policy, way, replicas, workers
        self.hosts, self._resolv = folder / "hosts", folder / "resolv.conf"
        self._ca = trustme.CA()
        self._tls = self._server_tls() if way is Way.TLS else None
        here, there = (_HERE, _THERE) if way is Way.NAMED else ("127.0.0.1", "127.0.0.1")
        # Not of those that the system gives to outgoing connections, one of which could take a stopped store's port.
        api, port, other, *between = ports = free_ports(3 + replicas + 5 + 2 * replicas)
        self.store = LocalStore(folder / "a", here, port)
        self.spare = LocalStore(folder / "b", there, port if way is Way.NAMED else other)
        proxied = replicas if way in {Way.PROXIED, Way.TLS} else 0
        self.trio = Trio("valkey", folder, port)
        self.cluster = RealCluster("valkey", folder / "c", options=PARTLY) if way.is_clustered else None
        self.proxies = [Proxy(each, port, tls=self._tls) for each in between[:proxied]]
        descriptors = folder / "descriptors"
        descriptors.mkdir(parents=True)
        self.config = descriptors / "api.yaml"
        self.config.write_text(config(way.limits))
        self.stack = Stack(
            ROOT,
            folder / "run",
            ports=Ports.of(ports[3 + replicas :]),
            env=self._settings() | ({"EXTAUTH_REDIS_TIMEOUT": str(PATIENT_REDIS_S)} if patient else {}),
            prometheus=False,
            ratelimit_timeout_s=PATIENT_S if patient else None,
            edit_envoy=_answered_by(api, way.limits),
            redis_urls=self._urls(),
            run_extauth=(*_NAMED, str(self.hosts), str(self._resolv)) if way is Way.NAMED else (),
        )
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._exit.callback(self.spare.stop)
            self._exit.callback(self.store.stop)
            await asyncio.to_thread(self.store.start)
            if self.way is Way.WATCHED:
                await self.start_spare()
                self._exit.callback(self.trio.stop)
                await asyncio.to_thread(self.trio.start)
            if self.cluster is not None:
                self._exit.callback(self.cluster.stop)
                await asyncio.to_thread(self.cluster.start)
            for proxy in self.proxies:
                await self._exit.enter_async_context(proxy)
            self.name_store(self.store.host)
            self._resolv.write_text(f"nameserver {RESOLVER}\n")
            self._exit.push_async_callback(asyncio.to_thread, self.stack.down)
            await asyncio.to_thread(self.stack.up)
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._exit.aclose()

    async def command(self, *commands: tuple[str | int, ...], store: Store | None = None) -> list[Any]:
        """Run commands at the store, as its administrator."""
        async with Redis.from_url((store or self.store).url) as client:
            return [await client.execute_command(*command) for command in commands]  # type: ignore[no-untyped-call]

    async def start_spare(self) -> None:
        """Have the spare run as a replica of the store, and return once it has all of its data."""
        if not self.spare.running:
            await asyncio.to_thread(self.spare.start)
        await self.command(("REPLICAOF", self.store.host, self.store.port), store=self.spare)

        async def has_all() -> bool:
            (info,) = await self.command(("INFO", "replication"), store=self.spare)
            return bool(info["master_link_status"] == "up")

        await until_async(has_all, "the spare store has all data", every_s=0.02)

    async def fail_over(self) -> None:
        """Make the spare the master without losing a write, as an operator does; the old one becomes its replica."""
        await self.command(("FAILOVER", "TO", self.spare.host, self.spare.port))

        async def is_master() -> bool:
            ((role, *_),) = await self.command(("ROLE",), store=self.spare)
            return bool(role == b"master")

        await until_async(is_master, "the spare store is the master")
        self.store, self.spare = self.spare, self.store

    def name_store(self, host: str | None) -> None:
        """Let the store's name stand for an address, or for none. The file is mounted, so it must stay the same."""
        self.hosts.write_text("127.0.0.1 localhost\n" + (f"{host} {NAME}\n" if host else ""))

    def certify(self, *, expired: bool) -> None:
        """Give the proxies a certificate for the connections to come."""
        if self._tls is not None:
            not_after = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
            since = not_after - timedelta(days=2)
            self._ca.issue_cert("127.0.0.1", not_before=since, not_after=not_after).configure_cert(self._tls)

    def _server_tls(self) -> ssl.SSLContext:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def _settings(self) -> dict[str, str]:
        engine = {name: value for name, value in os.environ.items() if name == "EXTAUTH_ENGINE"}
        part = {"EXTAUTH_LOCAL_SHARE": "auto", "EXTAUTH_REPLICAS": str(self.replicas)}
        shared = part if self.replicas > REPLICAS else {}
        if self.workers > 1:  # which the other engine has not
            shared |= {"EXTAUTH_WORKERS": str(self.workers), "EXTAUTH_ENGINE": "h2"}
        return {**engine, **shared, "EXTAUTH_CONFIG": str(self.config.parent), "EXTAUTH_ON_STORE_FAILURE": self.policy}

    def _urls(self) -> list[str]:
        user = f"{USER}:{PASSWORD}@"
        if self.way is Way.TLS:
            ca = f"/?ssl_ca_certs={self.folder / 'ca.pem'}"
            return [f"rediss://{user}127.0.0.1:{proxy.address}{ca}" for proxy in self.proxies]
        if self.way is Way.PROXIED:
            return [f"redis://{user}127.0.0.1:{proxy.address}" for proxy in self.proxies]
        if self.way is Way.WATCHED:
            return [f"redis+sentinel://{user}{self.trio.hosts}/{MASTER}"] * REPLICAS
        if self.cluster is not None:
            return [self.cluster.url] * REPLICAS
        host = NAME if self.way is Way.NAMED else self.store.host
        return [f"redis://{user}{host}:{self.store.port}"] * self.replicas


class LocalStore(Store):
    """A server with a port too, and a user whose rights may be narrowed; its administrator uses the Unix socket."""

    def __init__(self, folder: Path, host: str, port: int) -> None:
        folder.mkdir(parents=True)
        self.host, self.port = host, port
        where = ("--bind", host, "--port", str(port), "--replica-announce-ip", host)
        user = ("--user", USER, "on", f">{PASSWORD}", "+@all", "~*")
        self._listening = (*where, *user, "--protected-mode", "no")
        super().__init__("valkey", folder, *self._listening)

    def slow_loading(self, *, delay_us: int) -> None:
        """Take so long for each key when it is started the next time; 0: no time at all."""
        slow = ("--key-load-delay", str(delay_us), "--loading-process-events-interval-bytes", "1024")
        self._arguments = (*self._listening, *(slow if delay_us else ()))


def _answered_by(port: int, limits: int) -> Edit:
    """Let Envoy answer requests itself at this port, as the API would be slower than all the rest together.

    And let it ask for so many `limits` a request.
    """
    listeners = yaml.safe_load(UPSTREAM.replace("PORT", str(port)))["static_resources"]["listeners"]

    def edit(name: str, file: dict[str, Any]) -> None:
        if name == "envoy.yaml":
            for descriptors in _rate_limits(file) if limits > 1 else ():
                descriptors.append({"actions": [{"request_headers": _SECOND}]})
            file["static_resources"]["listeners"] += [{"name": "api", **listener} for listener in listeners]
        elif name == "cds.yaml":
            (echo,) = (each for each in file["resources"] if each["name"] == "echo")
            (endpoint,) = echo["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port

    return edit


def _rate_limits(part: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - of YAML
    """The descriptors of each route."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "rate_limits":
                yield value
            else:
                yield from _rate_limits(value)
    elif isinstance(part, list):
        for each in part:
            yield from _rate_limits(each)
