"""`./dev peers [--ratelimit PATH] [--limitador PATH]`: extauth beside envoyproxy/ratelimit and Limitador.

All run at the same time on one store, with the same limits, and are asked in turn: directly, with 10 calls in flight on
each connection, and through one Envoy. What slows the machine down for a while slows all of them. It takes about five
minutes, on loopback only.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.engines import ROOT
from bench.peers.envoy import envoy_before
from bench.peers.measuring import CONNECTIONS, STREAMS, Ask, Sample, admitted, direct, in_turns, through_envoy
from bench.peers.services import LIMIT, Peers, program, running
from bench.report import machine

ROUNDS = 3
BEGIN, END = "<!-- peers: begin -->\n", "<!-- peers: end -->"


def main() -> None:
    """Measure what there is a binary of, print the table, and with --write put it into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="./dev peers", description=__doc__)
    parser.add_argument("--ratelimit", metavar="PATH", help="the binary of envoyproxy/ratelimit")
    parser.add_argument("--limitador", metavar="PATH", help="the binary limitador-server")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"{ROUNDS} by default")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    # By default SIGTERM ends Python at once: the services would keep running.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    ratelimit = program("ratelimit", arguments.ratelimit)
    limitador = program("limitador", arguments.limitador)
    if arguments.write and (ratelimit is None or limitador is None):
        parser.error("--write needs both binaries: the table in docs/benchmarks.md has a row for each service")
    with tempfile.TemporaryDirectory(prefix="xa") as folder, running(ratelimit, limitador, Path(folder)) as peers:
        rows = measure(peers, Path(folder), arguments.rounds)
        exact = {service.name: admitted(service) for service in peers.services}
    text = table(rows, exact, versions(ratelimit, limitador), arguments.rounds)
    print(text)
    if arguments.write:
        path = ROOT / "docs/benchmarks.md"
        before, _, rest = path.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def measure(peers: Peers, folder: Path, rounds: int) -> dict[tuple[str, int], dict[str, Sample]]:
    """(way, connections) → the services' samples."""
    rows: dict[tuple[str, int], dict[str, Sample]] = {}

    def add(way: str, connections: int, asks: dict[str, Ask]) -> None:
        rows[way, connections] = in_turns(peers, asks, rounds)
        for name, sample in rows[way, connections].items():
            print(
                f"{way}, {connections}: {name} {sample.service_us:.1f} + {sample.store_us:.1f} µs, "
                f"{sample.per_s:,.0f}/s",
                file=sys.stderr,
                flush=True,
            )

    for connections in CONNECTIONS:
        add("direct", connections, {service.name: direct(service, connections) for service in peers.services})
    if shutil.which("h2load") is None:
        print(
            "through Envoy: skipped, because h2load is not on PATH (Debian: apt install nghttp2-client)",
            file=sys.stderr,
        )
        return rows
    with envoy_before(peers.services, folder) as ports:
        for connections in CONNECTIONS:
            add(
                "through Envoy",
                connections,
                {
                    service.name: through_envoy(service, ports[service.name], connections, folder)
                    for service in peers.services
                },
            )
    return rows


def table(
    rows: dict[tuple[str, int], dict[str, Sample]], exact: dict[str, int], versions: dict[str, str], rounds: int
) -> str:
    """Markdown."""
    lines = [
        f"{machine()[:-1]}, {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "",
        f"Medians of {rounds} rounds. Directly each connection has {STREAMS} calls in flight, through Envoy one.",
        "",
        "| way | connections | service | service µs | store µs | sum, beside extauth | decisions/s | p50 ms | p99 ms |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (way, connections), samples in rows.items():
        ours = samples["extauth"].service_us + samples["extauth"].store_us
        for name, sample in samples.items():
            times = (sample.service_us + sample.store_us) / ours
            lines.append(
                f"| {way} | {connections} | {name} | {sample.service_us:.1f} | {sample.store_us:.1f} | {times:.1f}× "
                f"| {sample.per_s:,.0f} | {sample.p50_us / 1000:.2f} | {sample.p99_us / 1000:.2f} |"
            )
    counts = "; ".join(f"{name} {count:,}" for name, count in exact.items())
    lines += ["", f"Of about {4 * LIMIT:,} calls at once for one key with a limit of {LIMIT:,}, admitted: {counts}."]
    return "\n".join(lines) + "\n"


def versions(ratelimit: Path | None, limitador: Path | None) -> dict[str, str]:
    """What the binaries say about themselves."""
    said = {"extauth": _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")}
    if ratelimit is not None:
        modules = [line.split() for line in _said("go", "version", "-m", str(ratelimit)).splitlines()]
        said["envoyproxy/ratelimit"] = next(
            (words[2] for words in modules if words[:1] == ["mod"]), "of unknown version"
        )
    if limitador is not None:
        said["Limitador"] = _said(str(limitador), "--version").removeprefix("Limitador Server ").split(" ")[0]
    return said


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "of unknown version"


if __name__ == "__main__":
    main()
