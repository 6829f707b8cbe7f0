"""What came of a fault, and what of it must not be."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from chaos.client import OK, OVER
from chaos.faults import Fault
from chaos.load import CALLERS, EDGE, USED_UP, Sample

MAX_LINES_A_MINUTE: Final = 10
# On a machine that takes the processor away for so long, or that is as busy, a late answer is no fault of ours.
STALL_S: Final = 0.05
BUSY: Final = 0.5
HONEST_ERRORS: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
_NEVER: Final = math.inf


@dataclass(frozen=True)
class Seen:
    """What was measured in a round. Times are of time.monotonic.

    The fault was caused at `began` and mended at `mended`; from `normal` on calls were counted together (inf: never).
    `stall_s` is the load's; `busy` is the part of the time in which anything on this machine waited for a processor.
    `envoy` are counts of tests/support/stack_counters during the round, `by_policy` the calls that the replicas decided
    without the store; `lines` and `tracebacks` (and other unhandled exceptions) are of the
    replicas' logs, those of the replica that has most.
    """

    samples: Sequence[Sample]
    began: float
    mended: float
    normal: float
    stall_s: float
    busy: float
    envoy: Mapping[str, int]
    by_policy: int
    lines: int
    tracebacks: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A round of one fault under one policy.

    `failed` are requests through Envoy that got neither 200 nor 429, and direct calls with no answer or a status that
    no policy gives. `errors` are direct calls with UNAVAILABLE or DEADLINE_EXCEEDED, `uncounted` requests that Envoy
    let through as its call to extauth failed, `timeouts` those of them to which no answer came in its timeout. `over`
    are admitted beyond the limits, of those callers whose limits must hold. `by_policy` calls were decided without the
    store. `p50_ms` and `p99_ms` are of all calls from the fault's beginning to its end, and `normal_s` is the time from
    its end until calls are counted together. `lines` of the log are those of the replica that wrote most. `busy` is how
    busy the machine was, in percent: over BUSY, it explains Envoy's timeouts.
    """

    fault: str
    policy: str
    calls: int
    failed: int
    errors: int
    uncounted: int
    timeouts: int
    over: int
    by_policy: int
    p50_ms: float
    p99_ms: float
    normal_s: float
    lines: int
    busy: float
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        cells = [
            f"{getattr(self, name):>{width(name)}.{1 if name.endswith(('_ms', '_s')) else 0}f}" for name in NUMBERS
        ]
        return f"{self.fault:<25}{self.policy:<7}" + "".join(cells)


NUMBERS: Final = tuple(each.name for each in fields(Row) if each.name not in {"fault", "policy", "wrong"})


def width(name: str) -> int:
    """Of a column."""
    return max(len(name), 6) + 2


HEADING: Final = f"{'fault':<25}{'policy':<7}" + "".join(f"{name:>{width(name)}}" for name in NUMBERS)


def row(name: str, fault: Fault, policy: str, seen: Seen, *, strict: bool) -> Row:
    """What was measured as a row, with a complaint for each number that must not be.

    Not `strict`, a machine that stalls explains late answers, and how long it takes to be normal again.
    """
    hit = {str(i) for i in fault.replicas}
    results = [result for *_, way, _, result in seen.samples if way not in hit]
    odd = [result for result in results if result not in (OK, OVER)]
    errors = [result for result in odd if result in HONEST_ERRORS]
    times_s = sorted(took for at, took, *_ in seen.samples if seen.began <= at < max(seen.mended, seen.began + 0.1))
    over = over_admitted(fault, policy, seen)
    ways = (EDGE, *map(str, range(fault.replicas_in_all)))
    uncounted = seen.envoy["allowed"]
    wrong = []
    if not times_s or not all(any(s[2] == way for s in seen.samples) for way in ways):
        wrong.append("too few calls were made, which shows nothing")
    if len(odd) > len(errors):
        others = Counter(
            f"{result} ({way})" for *_, way, _, result in seen.samples if result in set(odd) - HONEST_ERRORS
        )
        wrong.append(f"{len(odd) - len(errors)} calls failed: {dict(others)}")
    if policy != "error":
        if errors:
            wrong.append(f"{len(errors)} direct calls failed: {', '.join(sorted(set(errors)))}")
        slow_machine = not strict or seen.stall_s > STALL_S or seen.busy > BUSY
        explained = fault.lost + (seen.envoy["timeouts"] if slow_machine else 0)
        if uncounted > explained:
            wrong.append(f"{uncounted} requests passed uncounted, of which {explained:.0f} are explained")
    for who, number in over.items():
        if number > (bound := may_be_over(who, fault, policy)):
            wrong.append(f"{number} calls of {who!r} were admitted beyond the limit, of which {bound:.0f} may be")
    normal_s = seen.normal - seen.mended
    if normal_s > fault.normal_within_s * (1 if strict else 10):
        wrong.append(f"calls were counted together after {normal_s:.1f} s, not after {fault.normal_within_s:g} s")
    minutes = max((seen.mended - seen.began) / 60, 1)
    if seen.lines > MAX_LINES_A_MINUTE * minutes:
        wrong.append(f"a replica logged {seen.lines} lines, and may log {MAX_LINES_A_MINUTE} a minute")
    if seen.tracebacks:
        wrong.append(f"{seen.tracebacks} exceptions in a replica's log that nobody handled")
    return Row(
        fault=name,
        policy=policy,
        calls=len(seen.samples),
        failed=len(odd) - len(errors),
        errors=len(errors),
        uncounted=uncounted,
        timeouts=seen.envoy["timeouts"],
        over=sum(over.values()),
        by_policy=seen.by_policy,
        p50_ms=1000 * quantile(times_s, 0.5),
        p99_ms=1000 * quantile(times_s, 0.99),
        normal_s=normal_s,
        lines=seen.lines,
        busy=100 * seen.busy,
        wrong=tuple(f"{name}, {policy}: {each}" for each in wrong),
    )


def over_admitted(fault: Fault, policy: str, seen: Seen) -> dict[str, int]:
    """Admitted beyond the limits by caller, where a policy does not let pass what cannot be counted.

    Where `allow` may decide nothing is held against it, and nor is it for what Envoy lets through itself.
    """
    over = {}
    let_through = 0 if policy == "error" else seen.envoy["allowed"]
    for name, caller in CALLERS.items():
        if caller.limit is None:
            continue
        admitted = sum(
            1
            for at, _, way, who, result in seen.samples
            if who == name and result == OK and not _free(fault, policy, seen, at, way)
        )
        surplus = max(admitted - caller.limit, 0)
        over[name] = max(surplus - let_through, 0)
        let_through -= surplus - over[name]
    return over


def _free(fault: Fault, policy: str, seen: Seen, at: float, way: str) -> bool:
    """Whether a call that was sent then and there may be admitted without being counted."""
    if not seen.began - 0.3 <= at <= seen.normal:
        return False
    return policy == "allow" or (way == EDGE and policy == "error") or (way == EDGE and math.isinf(fault.lost))


def may_be_over(name: str, fault: Fault, policy: str) -> float:
    """How many of this caller's may be: what a store forgot, and the share of each replica that counts alone.

    Whoever was used up before stays so, except at a replica that does not know it.
    """
    alone = fault.newcomers if name == USED_UP else fault.cut_off
    return (CALLERS[name].limit or 0) * (fault.forgets + (len(alone) * fault.share if policy == "local" else 0))


def quantile(ordered: Sequence[float], part: float) -> float:
    """Of numbers in order; 0 where there are none."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def table(rows: Sequence[Row]) -> str:
    """All rows under a heading."""
    return "\n".join((HEADING, *map(str, rows)))


def markdown(rows: Sequence[Row]) -> str:
    """The same for a page."""
    names = ("fault", "policy", *NUMBERS)
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---|---|" + "---:|" * len(NUMBERS)]
    for each in rows:
        cells = str(each).split()
        lines.append("| " + " | ".join((f"`{cells[0]}`", *cells[1:])) + " |")
    return "\n".join(lines)
