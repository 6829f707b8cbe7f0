"""The whole way through real Envoy: what extauth and the store cost beside it."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.engines import ROOT, cpu_s, until_listening
from bench.report import Envoy
from scripts.stack import Ports, Stack, programs
from scripts.stack.upstream import UPSTREAM

CONNECTIONS = 64
CONFIG = """
domain: api
algorithm: gcra
labels: [path]
descriptors: [{key: api_key, rate_limit: {unit: day, requests_per_unit: 1000000000}}]
"""


def through_envoy(*, quick: bool) -> Envoy | None:
    """Requests over 64 connections, all admitted; None where h2load (nghttp2-client) is missing."""
    if shutil.which("h2load") is None:
        print("through Envoy: skipped, no h2load here (Debian: apt install nghttp2-client)")
        return None
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        descriptors, upstream_config = Path(folder) / "descriptors", Path(folder) / "upstream.yaml"
        descriptors.mkdir()
        (descriptors / "api.yaml").write_text(CONFIG)
        ports = Ports.free()
        upstream_config.write_text(UPSTREAM.replace("PORT", str(ports.echo)))
        env = {"EXTAUTH_CONFIG": str(descriptors)}
        stack = Stack(ROOT, Path(folder) / "run", ports=ports, env=env, prometheus=False)
        upstream = None
        try:
            stack.up()
            stack.stop("echo")
            argv: list[str | Path] = [
                programs.envoy(),
                "-c",
                upstream_config,
                "--log-level",
                "off",
                "--use-dynamic-base-id",
                "--concurrency",
                "1",
            ]
            upstream = subprocess.Popen(argv)
            until_listening(ports.echo, upstream)
            _ask(ports.edge, 2_000)
            parts = {name: _pid(stack, name) for name in ("envoy", "extauth-1", "extauth-2", "redis")}
            before = {name: cpu_s(pid) for name, pid in parts.items()}
            requests = 10_000 if quick else 50_000
            rate = _ask(ports.edge, requests)
            cost = {name: (cpu_s(pid) - before[name]) / requests * 1e6 for name, pid in parts.items()}
        finally:
            if upstream is not None:
                upstream.terminate()
                upstream.wait(20)
            stack.down()
    return Envoy(cost["envoy"], cost["extauth-1"] + cost["extauth-2"], cost["redis"], rate, CONNECTIONS)


def _pid(stack: Stack, name: str) -> int:
    pid = stack.process(name).pid()
    if pid is None:
        raise SystemExit(f"{name} does not run")
    return pid


def _ask(port: int, requests: int) -> float:
    """Make so many requests, all of which must be admitted; returns how many a second that were."""
    argv = ["h2load", "--h1", "-n", str(requests), "-c", str(CONNECTIONS), "-t", "1", "-H", "x-api-key: k"]
    done = subprocess.run([*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    if f"status codes: {requests} 2xx" not in done:
        raise SystemExit(f"not all requests were admitted:\n{done}")
    return float(re.search(r"([\d.]+) req/s", done)[1])  # type: ignore[index]
