"""Starts extauth, envoyproxy/ratelimit and Limitador with the same limits on one store."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.engines import ROOT, free_ports, until_listening
from scripts.stack import programs

LIMIT = 1_000
"""Calls that the domain `exact` admits for a key, a day."""

RULES = """\
domain: DOMAIN
descriptors:
- key: api_key
  rate_limit: {unit: day, requests_per_unit: NUMBER}
"""
"""One fixed window a day for each API key: extauth and envoyproxy/ratelimit load the same files."""

LIMITADOR_RULES = """\
- namespace: api
  max_value: 1000000000
  seconds: 86400
  conditions: []
  variables: ["descriptors[0].api_key"]
- namespace: exact
  max_value: NUMBER
  seconds: 86400
  conditions: []
  variables: ["descriptors[0].api_key"]
"""

PIPELINING: Mapping[str, Mapping[str, str]] = {
    "ratelimit": {},
    "ratelimit, pipelined": {"REDIS_PIPELINE_WINDOW": "150us", "REDIS_PIPELINE_LIMIT": "8"},
}
"""envoyproxy/ratelimit with its defaults, and as its documentation suggests for many calls at once."""

BUILD = {
    "ratelimit": (
        "Build it with Go: go install github.com/envoyproxy/ratelimit/src/service_cmd@main, "
        "then pass --ratelimit ~/go/bin/service_cmd."
    ),
    "limitador": (
        "Build it with Rust, from the sources of github.com/Kuadrant/limitador (the crate on the registry is only "
        "the library): cargo build --release -p limitador-server, then pass "
        "--limitador target/release/limitador-server."
    ),
}


@dataclass(frozen=True)
class Service:
    """A rate limit service that runs: its name in the tables, its gRPC port, and its process."""

    name: str
    port: int
    pid: int


@dataclass(frozen=True)
class Peers:
    """The services that run, and their one store."""

    services: tuple[Service, ...]
    store: int


def program(name: str, path: str | None) -> Path | None:
    """The binary of a peer, or None with a message on standard error that says how to get it."""
    found = shutil.which(path or name)
    if found is None:
        where = f"--{name} {path}: no such program" if path else f"{name}: not on PATH, and no --{name} given"
        print(f"{where}, so it is not measured. {BUILD[name]}", file=sys.stderr)
        return None
    return Path(found).resolve()


@contextmanager
def running(ratelimit: Path | None, limitador: Path | None, folder: Path) -> Iterator[Peers]:
    """Start the store and every service that there is a binary of; end them when the block ends.

    Raises SystemExit with the end of its log where one does not start.
    """
    with ExitStack() as stack:
        store_port, *ports = free_ports(13)
        take = iter(ports)
        store_argv = [programs.store(), "--port", store_port, "--bind", "127.0.0.1", "--save", "", "--maxmemory", "2gb"]
        store = start(stack, "store", store_argv, store_port, folder=folder, env={})
        services = []

        def add(name: str, argv: list[object], port: int, env: Mapping[str, object]) -> None:
            process = start(stack, name, argv, port, folder=folder, env=env)
            services.append(Service(name, port, process.pid))

        rules = folder / "rules" / "config"
        rules.mkdir(parents=True)
        for domain, number in (("api", 1_000_000_000), ("exact", LIMIT)):
            (rules / f"{domain}.yaml").write_text(RULES.replace("DOMAIN", domain).replace("NUMBER", str(number)))
        port = next(take)
        add(
            "extauth",
            [sys.executable, "-m", "extauth", "serve"],
            port,
            {
                "EXTAUTH_CONFIG": rules,
                "EXTAUTH_REDIS_URL": f"redis://127.0.0.1:{store_port}",
                "EXTAUTH_REDIS_TIMEOUT": 10,
                "EXTAUTH_ON_STORE_FAILURE": "error",
                "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{port}",
                "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{next(take)}",
                "EXTAUTH_DRAIN_DELAY": 0,
            },
        )
        for title, pipelining in PIPELINING.items() if ratelimit is not None else ():
            port = next(take)
            env = {
                "RUNTIME_ROOT": folder,
                "RUNTIME_SUBDIRECTORY": "rules",
                "RUNTIME_WATCH_ROOT": "false",
                "HOST": "127.0.0.1",
                "PORT": next(take),
                "DEBUG_HOST": "127.0.0.1",
                "DEBUG_PORT": next(take),
                "GRPC_HOST": "127.0.0.1",
                "GRPC_PORT": port,
                "USE_STATSD": "false",
                "REDIS_SOCKET_TYPE": "tcp",
                "REDIS_URL": f"127.0.0.1:{store_port}",
                "CACHE_KEY_PREFIX": f"{title}:",
                "BACKEND_TYPE": "redis",
                **pipelining,
            }
            add(title, [ratelimit], port, env)
        if limitador is not None:
            limits, port = folder / "limits.yaml", next(take)
            limits.write_text(LIMITADOR_RULES.replace("NUMBER", str(LIMIT)))
            options = ["-b", "127.0.0.1", "-p", port, "-B", "127.0.0.1", "-P", next(take), limits]
            add("Limitador", [limitador, *options, "redis", f"redis://127.0.0.1:{store_port}"], port, {})
        yield Peers(tuple(services), store.pid)


def start(
    stack: ExitStack, name: str, argv: list[object], port: int, *, folder: Path, env: Mapping[str, object]
) -> "subprocess.Popen[bytes]":
    """Start a program that listens on that port, and end it with the stack."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in argv],
            env=os.environ | {key: str(value) for key, value in env.items()},
            cwd=ROOT if name == "extauth" else folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    stack.callback(_end, process)
    try:
        until_listening(port, process)
    except SystemExit:
        raise SystemExit(f"{name} did not start. The end of its log:\n{log.read_text()[-2000:]}") from None
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
