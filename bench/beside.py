"""`./dev bench --beside REF`: this tree beside another commit, in turns, by the CPU that a decision costs.

Both services run at the same time, each with a store of its own, and are asked in turn: what slows the machine down for
a while slows both. They are started anew for each round, as what a process costs depends on where its memory happens to
lie, by a tenth and more for as long as it runs. CPU is read in nanoseconds, the run time of all threads in
/proc/PID/task/*/schedstat (proc(5)).
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from math import comb
from pathlib import Path
from statistics import median

from bench.cases import CASES, Case
from bench.engines import ROOT, Result, Running, running

ROUNDS = 7
FEWEST_ROUNDS = 6  # with fewer, not even the whole range holds the median with CONFIDENCE
SLOWER = 1.03  # a case is slower only if the whole interval lies above this
CONFIDENCE = 0.95
CALLS = {"one": 4_000, "keys_1000000": 100_000}
USUAL_CALLS = 60_000
TURNS = 2  # of each service in a round


class CpuClock:
    """The CPU time of a process so far; threads that have ended keep what they had when last seen."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._seen: dict[str, int] = {}

    def ns(self) -> int:
        """Nanoseconds."""
        for task in self._tasks.iterdir():
            try:
                ran_ns = int((task / "schedstat").read_text().split()[0])
            except FileNotFoundError:  # it has just ended
                continue
            self._seen[task.name] = max(ran_ns, self._seen.get(task.name, 0))
        return sum(self._seen.values())


@dataclass(frozen=True)
class Interval:
    """The median of `values` ratios, and an interval that holds the true one with at least that `confidence`.

    Its ends are order statistics: the `rank`-th smallest and the `rank`-th greatest ratio.
    """

    low: float
    median: float
    high: float
    confidence: float
    rank: int
    values: int

    @property
    def ends(self) -> str:
        """Which order statistics the interval runs between, counted from the smallest."""
        return f"values {self.rank} and {self.values + 1 - self.rank} of {self.values}"

    @property
    def slower(self) -> bool:
        """Whether the whole interval lies above SLOWER."""
        return self.low > SLOWER

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}){' SLOWER' if self.slower else ''}"


def interval(ratios: Sequence[float]) -> Interval:
    """The narrowest interval between order statistics that holds the median with CONFIDENCE, or the whole range.

    Distribution-free: how many of n values lie on one side of the median has a binomial distribution.
    """
    ordered, n = sorted(ratios), len(ratios)
    left_out, confidence = 0, 1 - 2 / 2**n
    for k in range(1, (n + 1) // 2):
        outside = 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n
        if 1 - outside < CONFIDENCE:
            break
        left_out, confidence = k, 1 - outside
    return Interval(ordered[left_out], median(ordered), ordered[n - 1 - left_out], confidence, left_out + 1, n)


@contextmanager
def tree_of(ref: str) -> Iterator[Path]:
    """The files of another commit, in a folder of their own."""
    commit = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], cwd=ROOT, check=False, capture_output=True
    )
    if commit.returncode:
        raise SystemExit(f"--beside {ref}: no such commit here")
    name = commit.stdout.decode().strip()
    tree = ROOT / ".run" / "beside" / name
    _remove(tree)
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), name], cwd=ROOT, check=True)
    # By default SIGTERM ends Python at once: the folder and both services would stay.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield tree
    finally:
        signal.signal(signal.SIGTERM, before)
        _remove(tree)


def _remove(tree: Path) -> None:
    subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False, capture_output=True)
    subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=False, capture_output=True)


def imports_from(tree: Path) -> None:
    """Exit unless a service in that folder runs its code, and not what is installed, and finds all that it imports."""
    argv = [sys.executable, "-c", "import extauth.app, extauth.cli; print(extauth.__file__)"]
    imported = subprocess.run(argv, cwd=tree, capture_output=True, check=False, text=True)
    if imported.returncode:
        reason = imported.stderr.strip().rpartition("\n")[2]
        raise SystemExit(f"in {tree} extauth does not start: {reason}; install what that commit needs into .venv")
    found = imported.stdout
    if not Path(found).is_relative_to(tree):
        raise SystemExit(f"in {tree} Python imports {found.strip()}")


Load = Callable[[Running, Case, int, int], Result]
"""(server, case, calls, seed) → what that came to."""


def beside(ref: str, names: Sequence[str], *, rounds: int, quick: bool, load: Load) -> bool:
    """Compare all cases, or those that are named; prints a line each. Whether none is slower."""
    ok = True
    with tree_of(ref) as tree:
        for root in (ROOT, tree):
            imports_from(root)
        print(heading(f"this tree : {ref}", rounds), flush=True)
        for case in (CASES[name] for name in names or CASES):
            ours = partial(running, "h2", "uvloop", case)
            service, total = compare(ours, partial(ours, root=tree), case, rounds=rounds, quick=quick, load=load)
            ok = ok and not service.slower and not total.slower
            print(f"{case.title:<40} service {service}   with store {total}", flush=True)
    print(f"no case slower than {SLOWER}" if ok else f"slower: the whole interval lies above {SLOWER}")
    return ok


def heading(what: str, rounds: int) -> str:
    """What the ratios are, and how sure."""
    kind = interval([1.0] * rounds)
    return f"CPU a decision, {what}; median of {rounds} rounds, {kind.confidence:.1%} interval between {kind.ends}"


Start = Callable[[], AbstractContextManager[Running]]


def compare(
    ours: Start, theirs: Start, case: Case, *, rounds: int, quick: bool, load: Load
) -> tuple[Interval, Interval]:
    """The ratios of one case, of two ways to run it: of the service's CPU, and of the store's with it."""
    calls = CALLS.get(case.name, USUAL_CALLS) // (4 if quick else 1)
    warm = calls if case.keys == 0 else min(max(2 * case.keys, calls), 300_000)
    services: list[float] = []
    totals: list[float] = []
    for number in range(rounds):
        with ours() as first, theirs() as second:
            pair = [(each, CpuClock(each.service), CpuClock(each.store)) for each in (first, second)]
            for server, _, _ in pair:
                load(server, case, warm, 1)
            spent = [(0, 0), (0, 0)]
            for turn in range(2 * TURNS):
                i = (turn + turn // 2 + number) % 2  # in the order 0 1 1 0, and 1 0 0 1 in the next round
                server, service, store = pair[i]
                before = service.ns(), store.ns()
                load(server, case, calls // TURNS, 2 + turn)
                spent[i] = spent[i][0] + service.ns() - before[0], spent[i][1] + store.ns() - before[1]
        services.append(spent[0][0] / spent[1][0])
        totals.append(sum(spent[0]) / sum(spent[1]))
    return interval(services), interval(totals)
