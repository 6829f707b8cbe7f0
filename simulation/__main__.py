"""Run extauth's decisions in simulated time, against a store and a network that fail, and hold them to plain oracles.

A seed that fails prints a schedule, shortened while it still fails: when who did what. Exits with 1 then.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from simulation.faults import KINDS
from simulation.run import DURATION_S, Schedule, run
from simulation.shrink import shrink

SCHEDULES = 10_000
SHOWN = 3  # failing schedules that are printed whole
AT_ONCE = 50


class _Figures(NamedTuple):
    failing: list[int]
    answered: Counter[str]
    trips: int
    clusters: int
    returned: int
    faults: Counter[str]


def main() -> None:
    """Run the schedules that the arguments name."""
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__)
    parser.add_argument("--schedules", type=int, default=SCHEDULES, metavar="N", help=f"{SCHEDULES} by default")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first schedule; each has the next one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    arguments = parser.parse_args()
    began = time.perf_counter()
    seeds = range(arguments.seed, arguments.seed + arguments.schedules)
    parts = [seeds[at : at + AT_ONCE] for at in range(0, len(seeds), AT_ONCE)]
    failing: list[int] = []
    answered, faults, trips, clusters, returned = Counter[str](), Counter[str](), 0, 0, 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for figures in pool.map(run_all, parts):
            for seed in figures.failing:
                failing.append(seed)
                if len(failing) <= SHOWN:
                    print("\n".join(explain(seed)), flush=True)
            answered += figures.answered
            faults += figures.faults
            trips += figures.trips
            clusters += figures.clusters
            returned += figures.returned
    took_s = time.perf_counter() - began
    print(f"{len(seeds)} schedules of {DURATION_S:g} s in {took_s:.0f} s: {len(failing)} failed")
    print(f"{answered.total()} calls: " + ", ".join(f"{answered[name]} by {name}" for name in sorted(answered)))
    print(f"{trips} times a breaker opened; faults: " + ", ".join(f"{faults[kind]} {kind}" for kind in KINDS))
    print(f"{clusters} schedules with a cluster, on whose shards {returned} hits were given back")
    if failing:
        print(f"failing seeds: {' '.join(map(str, failing))}")
        raise SystemExit(1)


def run_all(seeds: range) -> _Figures:
    """Run the schedules of these seeds."""
    figures = _Figures([], Counter(), 0, 0, 0, Counter())
    for seed in seeds:
        schedule = Schedule.of(seed)
        result = run(schedule)
        if result.wrong:
            figures.failing.append(seed)
        figures.answered.update(result.answered)
        figures.faults.update(fault.kind for fault in schedule.faults)
        figures = figures._replace(
            trips=figures.trips + result.trips,
            clusters=figures.clusters + schedule.layout.is_cluster,
            returned=figures.returned + result.returned,
        )
    return figures


def explain(seed: int) -> Iterator[str]:
    """A failing seed's schedule, shortened, and all that happens in it until something is wrong."""
    schedule = shrink(Schedule.of(seed))
    result = run(schedule, record=True)
    store = f"{schedule.layout.masters} masters of a cluster" if schedule.layout.is_cluster else "one server"
    yield f"seed {seed}: {schedule.replicas} replicas, a share being {schedule.share or 'auto'} of a limit, on {store}"
    yield from (f"  at {fault.at_s:.3f} s: {fault}" for fault in schedule.faults)
    yield "  seconds    actor                event"
    for line in result.record:
        yield f"  {line}"
        if "WRONG" in line:
            break
    yield from (f"  {wrong}" for wrong in result.wrong[1:])


if __name__ == "__main__":
    main()
