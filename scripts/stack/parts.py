"""What the stack is made of: how each part is started, and how it shows that it is ready."""

import http.client
import socket
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stack import programs, render
from scripts.stack.ports import Ports, Replica


@dataclass(frozen=True, slots=True)
class Part:
    """One process: its command, the TCP ports it takes (each with its use), and its probe."""

    name: str
    argv: list[str | Path]
    cwd: Path
    ready: Callable[[], bool]
    where: str
    ports: dict[int, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    prepare: Callable[[], None] = lambda: None


def get(port: int, path: str) -> tuple[int, str]:
    """The status and the body of a GET on loopback; status 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def store(state: Path, socket_path: Path) -> Part:
    """Valkey or Redis on a unix socket, in memory only. noeviction: an evicted counter would be a fresh allowance."""

    def ready() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            try:
                connection.connect(str(socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    settings: dict[str, str | Path] = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": state,
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    argv: list[str | Path] = [programs.store()]
    for name, value in settings.items():
        argv += [f"--{name}", value]
    return Part("redis", argv, state, ready, f"unix:{socket_path}")


def extauth(
    index: int, replica: Replica, root: Path, redis_url: str, env: Mapping[str, str], *, within: Sequence[str] = ()
) -> Part:
    """One replica of the rate limit service, started by the command `within` if there is one."""
    settings = {
        "EXTAUTH_CONFIG": str(root / "envoy" / "descriptors"),
        "EXTAUTH_ADVERTISE": f"127.0.0.1:{replica.grpc}",  # of its own, a loopback address is none
        **env,
        "EXTAUTH_REDIS_URL": redis_url,
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{replica.grpc}",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{replica.admin}",
        "PYTHONUNBUFFERED": "1",
    }
    return Part(
        f"extauth-{index}",
        [*within, sys.executable, "-P", "-m", "extauth", "serve"],
        root,
        lambda: get(replica.admin, "/readyz")[0] == 200,
        f"grpc 127.0.0.1:{replica.grpc}, admin http://127.0.0.1:{replica.admin}",
        {replica.grpc: "gRPC", replica.admin: "admin"},
        settings,
    )


def echo(root: Path, ports: Ports) -> Part:
    """The API."""
    return Part(
        "echo",
        [sys.executable, root / "services" / "echo" / "echo.py"],
        root,
        lambda: get(ports.echo, "/healthz")[0] == 200,
        f"http://127.0.0.1:{ports.echo}",
        {ports.echo: "HTTP"},
        {"ECHO_LISTEN": f"127.0.0.1:{ports.echo}", "PYTHONUNBUFFERED": "1"},
    )


def envoy(
    root: Path, state: Path, ports: Ports, ratelimit_timeout_s: float | None, edit: render.Edit | None = None
) -> Part:
    """The edge. Ready when it is live, finds every extauth replica healthy and passes a request to the API."""
    shipped, copy = root / "envoy", state / "envoy"
    as_shipped = ports == Ports.default() and ratelimit_timeout_s is None and edit is None

    def prepare() -> None:
        if not as_shipped:
            render.envoy(shipped, copy, ports, ratelimit_timeout_s, edit or (lambda _name, _file: None))

    def ready() -> bool:
        if get(ports.envoy_admin, "/ready")[0] != 200:
            return False
        clusters = get(ports.envoy_admin, "/clusters")[1].splitlines()
        flags = [line for line in clusters if line.startswith("extauth::") and "::health_flags::" in line]
        healthy = [line for line in flags if line.endswith("::healthy")]
        return len(healthy) == len(flags) == len(ports.extauth) and get(ports.edge, "/healthz")[0] == 200

    # Without hot restart it needs no shared memory, which a kill would leave behind.
    # The access log is written every 10 s by default, which is late for who follows it.
    options = [
        "--concurrency",
        "2",
        "--log-level",
        "warning",
        "--disable-hot-restart",
        "--file-flush-interval-msec",
        "200",
    ]
    return Part(
        "envoy",
        [programs.envoy(), "-c", "../envoy.yaml" if as_shipped else "envoy.yaml", *options],
        shipped / "local" if as_shipped else copy,
        ready,
        f"http://localhost:{ports.edge}, admin http://127.0.0.1:{ports.envoy_admin}",
        {ports.edge: "the edge", ports.envoy_admin: "admin", ports.envoy_stats: "stats for Prometheus"},
        host="0.0.0.0" if as_shipped else "127.0.0.1",  # noqa: S104 - as the files say
        prepare=prepare,
    )


def prometheus(program: Path, root: Path, state: Path, ports: Ports) -> Part:
    """Prometheus with the shipped configuration and the targets of the local mode."""
    config = state / "prometheus" / "config"
    return Part(
        "prometheus",
        [
            program,
            f"--config.file={config / 'prometheus.yml'}",
            f"--storage.tsdb.path={state / 'prometheus' / 'data'}",
            "--storage.tsdb.retention.time=7d",
            f"--web.listen-address=127.0.0.1:{ports.prometheus}",
        ],
        state,
        lambda: get(ports.prometheus, "/-/ready")[0] == 200,
        f"http://127.0.0.1:{ports.prometheus}",
        {ports.prometheus: "HTTP"},
        prepare=lambda: render.prometheus(root / "observability", config, ports),
    )


def redis_url(socket_path: Path) -> str:
    """The address of the store for extauth and redis-py."""
    return f"unix://{urllib.parse.quote(str(socket_path))}?db=0"
