"""`./dev bench [--json FILE] [--quick] [CASE…]`: side by side on loopback, and docs/benchmarks.md.

`./dev bench --beside REF [--rounds N] [--quick] [CASE…]`: this tree beside another commit.
`./dev bench metrics [--rounds N] [--quick] [CASE…]`: this tree beside itself without metrics.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from bench.beside import FEWEST_ROUNDS, ROUNDS, beside
from bench.cases import CASES, Case
from bench.engines import ROOT, Result, Running, cpu_s, rss_mb, running
from bench.envoy import through_envoy
from bench.loading import loading
from bench.metrics import metrics
from bench.report import FLAT, TARGETS, report

YARDSTICKS = (("grpcio", "uvloop"), ("grpcio", "asyncio"))
# Enough for a second or more of CPU: the kernel counts it in ticks of 10 ms.
CALLS = {"h2": 200_000, "grpcio": 8_000}
ONE_CALLS = {"h2": 20_000, "grpcio": 4_000}


def load(server: Running, case: Case, calls: int, seed: int) -> Result:
    """Ask so often, and measure what that costs."""
    argv = [sys.executable, "-m", "bench.load", server.target, case.name, str(calls), str(seed)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        if generator.stdin is None or generator.stdout is None or generator.stdout.readline() != "ready\n":
            raise SystemExit("the load generator did not start")
        service, store = cpu_s(server.service), cpu_s(server.store)
        generator.stdin.write("go\n")
        generator.stdin.flush()
        told = json.loads(generator.stdout.readline() or "{}")
        if not told:
            raise SystemExit("the load generator failed")
        service, store = cpu_s(server.service) - service, cpu_s(server.store) - store
    n = told["calls"]
    return Result(
        service / n * 1e6,
        store / n * 1e6,
        n / told["seconds"],
        told["p50_us"],
        told["p99_us"],
        rss_mb(server.service),
        told["denied"] / n,
        told["cpu"],
    )


def measure(engine: str, loop: str, case: Case, *, quick: bool) -> Result:
    """One case on one engine: a warm-up that counts for nothing, then the calls that do."""
    calls = (ONE_CALLS if case.name == "one" else CALLS)[engine]
    if engine == "h2" and case.keys >= 100_000:
        calls = 3 * case.keys if case.keys < 1_000_000 else 2 * calls
    if quick:
        calls //= 5
    with running(engine, loop, case) as server:
        warm = calls // 5
        if case.denied:
            warm = case.keys  # each key's one admission, more or less
        elif 1 < case.keys <= 100_000 and engine == "h2":
            warm = 2 * case.keys
        load(server, case, warm, seed=1)
        return load(server, case, calls, seed=2)


def main() -> None:
    """Run all cases, or those that are named."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, a key a case")
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the calls: rougher numbers, nothing written to docs"
    )
    parser.add_argument("--beside", metavar="REF", help="compare with this commit; exits with 1 where a case is slower")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"with --beside and metrics; {ROUNDS} by default"
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}, envoy, loading, metrics")
    arguments = parser.parse_intermixed_args()
    if unknown := set(arguments.cases) - {*CASES, "envoy", "loading", "metrics"}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if arguments.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}, or no interval is sure enough")
    if "metrics" in arguments.cases and not arguments.beside:
        names = [name for name in arguments.cases if name in CASES]
        ok = metrics(names, rounds=arguments.rounds, quick=arguments.quick, load=load)
        raise SystemExit(0 if ok else 1)
    if arguments.beside:
        if alone := set(arguments.cases) - {*CASES}:
            parser.error(f"--beside does not compare: {', '.join(sorted(alone))}")
        ok = beside(arguments.beside, arguments.cases, rounds=arguments.rounds, quick=arguments.quick, load=load)
        raise SystemExit(0 if ok else 1)
    names = arguments.cases or [*CASES, "envoy", "loading"]
    results: dict[str, dict[str, Result]] = {}
    for case in (CASES[name] for name in names if name in CASES):
        row = results[case.name] = {"h2": measure("h2", "uvloop", case, quick=arguments.quick)}
        say(f"{case.title}: h2", row["h2"])
        if case.name in TARGETS or case.name in FLAT:
            for engine, loop in YARDSTICKS if case.name in TARGETS else ():
                row[f"{engine}/{loop}"] = measure(engine, loop, case, quick=arguments.quick)
                say(f"{case.title}: {engine} on {loop}", row[f"{engine}/{loop}"])
    envoy = through_envoy(quick=arguments.quick) if "envoy" in names else None
    read = loading() if "loading" in names else None
    text = report(results, envoy, read)
    print(text)
    if arguments.json:
        numbers = {name: {engine: asdict(result) for engine, result in row.items()} for name, row in results.items()}
        arguments.json.write_text(
            json.dumps({**numbers, "envoy": envoy and asdict(envoy), "loading": read and read.seconds}, indent=1) + "\n"
        )
    if not arguments.quick and not arguments.cases:
        write_docs(text)


def say(what: str, result: Result) -> None:
    """One line of progress."""
    bound = ", the generator at its limit" if result.generator_cpu > 0.9 else ""
    print(
        f"{what}: {result.service_us:.1f} + {result.store_us:.1f} µs, {result.calls_per_s:,.0f}/s{bound}",
        file=sys.stderr,
        flush=True,
    )


def write_docs(text: str) -> None:
    """Put the tables between the markers of docs/benchmarks.md."""
    path = ROOT / "docs/benchmarks.md"
    begin, end = "<!-- measured: begin -->\n", "<!-- measured: end -->"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(before + begin + "\n" + text + "\n" + end + after)


if __name__ == "__main__":
    main()
