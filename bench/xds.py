"""How long 12,800 limits take until they are in force: by xDS, beside envoyproxy/ratelimit, and from files.

`python -m bench.xds [--ratelimit PATH] [--rounds N]`. All limits change at once. The clock runs from when the server of
go-control-plane sends its response, or from when the last file is written, to the first answer by the new limits.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from bench.engines import cpu_s, free_ports
from bench.peers.services import program, start
from bench.xds_rules import DOMAINS, LIMITS, ROUTES, domain, entries
from extauth.rls.encode import encode_request
from extauth.rls.protobuf import fields
from extauth.rls.request import SERVICE, Descriptor, Entry
from scripts.stack import programs
from tests.support.go_xds import NODE, GoXds

OVER_LIMIT = 2
DEADLINE_S = 60.0

_Env = Mapping[str, object]


class Asker:
    """Asks a service for one limit of the last domain, over and over."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._ask: Any = self._channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        name = domain(DOMAINS - 1, 0)["domain"]
        descriptor = Descriptor(tuple(Entry(*entry) for entry in entries(ROUTES - 1)))
        self._message = encode_request(name, [descriptor])

    def close(self) -> None:
        self._channel.close()

    def until(self, code: int) -> float:
        """When the first answer with this code came."""
        deadline = time.perf_counter() + DEADLINE_S
        while time.perf_counter() < deadline:
            answer = self._ask(self._message, timeout=DEADLINE_S, wait_for_ready=True)
            if dict(fields(answer)).get(1) == code:
                return time.perf_counter()
            time.sleep(0.002)
        raise SystemExit(f"no answer with the code {code} within {DEADLINE_S:g} s")


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(prog="python -m bench.xds")
    parser.add_argument("--ratelimit", metavar="PATH", help="the binary of envoyproxy/ratelimit")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    # Denied from the beginning: then the first set admits, and the second denies again.
    sets = [[domain(number, requests) for number in range(DOMAINS)] for requests in (1_000_000, 0)]
    ratelimit = program("ratelimit", arguments.ratelimit)
    took: dict[str, list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        took.setdefault("extauth, xDS", []).append(by_xds(sets, extauth))
        if ratelimit is not None:
            took.setdefault("envoyproxy/ratelimit, xDS", []).append(by_xds(sets, reference(ratelimit)))
        took.setdefault("extauth, files", []).append(by_files(sets))
    print(f"{DOMAINS * ROUTES * LIMITS} limits in {DOMAINS} domains, median of {arguments.rounds}:")
    for name, rounds in took.items():
        in_force, cpu = (median(column) for column in zip(*rounds, strict=True))
        print(f"{name:>26}: in force after {in_force:.2f} s, of {cpu:.2f} s of CPU")


def extauth(folder: Path, store: int, xds: GoXds) -> tuple[list[object], int, _Env]:
    port, admin = free_ports(2)
    return (
        [sys.executable, "-m", "extauth", "serve"],
        port,
        {
            **_own(store, port, admin),
            "EXTAUTH_CONFIG": f"xds://{xds.address}",
            "EXTAUTH_XDS_NODE_ID": NODE,
        },
    )


def _own(store: int, port: int, admin: int) -> dict[str, object]:
    return {
        "EXTAUTH_REDIS_URL": f"redis://127.0.0.1:{store}",
        "EXTAUTH_REDIS_TIMEOUT": 10,
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{port}",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "EXTAUTH_DRAIN_DELAY": 0,
    }


def reference(binary: Path) -> Callable[[Path, int, GoXds], tuple[list[object], int, _Env]]:
    def command(folder: Path, store: int, xds: GoXds) -> tuple[list[object], int, _Env]:
        port, http, debug, metrics = free_ports(4)
        return (
            [binary],
            port,
            {
                "CONFIG_TYPE": "GRPC_XDS_SOTW",
                "CONFIG_GRPC_XDS_SERVER_URL": xds.address,
                "CONFIG_GRPC_XDS_NODE_ID": NODE,
                "HOST": "127.0.0.1",
                "PORT": http,
                "DEBUG_HOST": "127.0.0.1",
                "DEBUG_PORT": debug,
                "GRPC_HOST": "127.0.0.1",
                "GRPC_PORT": port,
                "PROMETHEUS_ADDR": f"127.0.0.1:{metrics}",
                "USE_STATSD": "false",
                "USE_PROMETHEUS": "true",
                "REDIS_SOCKET_TYPE": "tcp",
                "REDIS_URL": f"127.0.0.1:{store}",
                "BACKEND_TYPE": "redis",
            },
        )

    return command


def by_xds(
    sets: list[list[dict[str, Any]]], command: Callable[[Path, int, GoXds], tuple[list[object], int, _Env]]
) -> tuple[float, float]:
    """The seconds until the second set is in force after the first one, and those of CPU meanwhile."""
    with _store() as (stack, folder, store):
        xds = GoXds()
        stack.callback(xds.stop)
        xds.push("1", *sets[0])
        argv, port, env = command(folder, store, xds)
        process = start(
            stack, "extauth" if argv[0] == sys.executable else "ratelimit", argv, port, folder=folder, env=env
        )
        asker = stack.enter_context(closing(Asker(port)))
        asker.until(1)
        xds.answer_to("1")
        time.sleep(1)
        cpu = cpu_s(process.pid)
        xds.push("2", *sets[1])
        while not any(event["event"] == "response" and event["version"] == "2" for event in xds.events):
            time.sleep(0.001)
        began = time.perf_counter()
        took = asker.until(OVER_LIMIT) - began
        return took, cpu_s(process.pid) - cpu


def by_files(sets: list[list[dict[str, Any]]]) -> tuple[float, float]:
    """The same from a folder of files."""
    with _store() as (stack, folder, store):
        rules = folder / "rules"
        rules.mkdir()
        _write(rules, sets[0])
        port, admin = free_ports(2)
        env = {**_own(store, port, admin), "EXTAUTH_CONFIG": rules}
        process = start(stack, "extauth", [sys.executable, "-m", "extauth", "serve"], port, folder=folder, env=env)
        asker = stack.enter_context(closing(Asker(port)))
        asker.until(1)
        time.sleep(1)
        cpu = cpu_s(process.pid)
        _write(rules, sets[1])
        began = time.perf_counter()
        took = asker.until(OVER_LIMIT) - began
        return took, cpu_s(process.pid) - cpu


def _write(folder: Path, configs: list[dict[str, Any]]) -> None:
    for number, config in enumerate(configs):  # JSON is YAML
        part = folder / f"{number}.new"
        part.write_text(json.dumps(config))
        part.rename(folder / f"{number}.yaml")


@contextmanager
def _store() -> Iterator[tuple[ExitStack, Path, int]]:
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (port,) = free_ports(1)
        argv: list[object] = [programs.store(), "--port", port, "--bind", "127.0.0.1", "--save", ""]
        start(stack, "store", argv, port, folder=folder, env={})
        yield stack, folder, port


if __name__ == "__main__":
    main()
