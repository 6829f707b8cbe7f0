"""The callers of all replicas as lines of text."""

import time
from collections.abc import Iterator, Sequence

from extauth.commands.output import many
from extauth.telemetry.top import Caller, RuleTop, TopOfAll

_HEAD = ("since", "last", "rule", "caller")


def top_lines(shown: TopOfAll, rows: int = 20) -> list[str]:
    """Who is denied most, then who calls most: at most `rows` rows each."""
    return list(_lines(shown, rows))


def _lines(shown: TopOfAll, rows: int) -> Iterator[str]:
    top = shown.all
    yield f"{many(shown.replicas, 'replica')}, calls since {_time(top.since_s)}, now {_time(time.time())}"
    if shown.unknown:
        reason = f": {shown.problem}" if shown.problem else ""
        yield f"{many(shown.unknown, 'other replica')} not counted{reason}"
    denied = [(rule, caller) for rule in top.rules for caller in rule.denied]
    busiest = [(rule, caller) for rule in top.rules for caller in rule.busiest]
    yield ""
    yield from _table("denied", denied, rows, top.denied_examined)
    yield ""
    yield from _table("calls", busiest, rows, top.busiest_examined)


def _table(what: str, callers: Sequence[tuple[RuleTop, Caller]], rows: int, examined: float) -> Iterator[str]:
    if not callers:
        yield f"{what}: none"
        return
    ranked = sorted(callers, key=lambda each: -each[1].calls)[:rows]
    cells = [
        (_number(caller, examined), _time(caller.first_s), _time(caller.last_s), f"{rule.domain} {rule.rule}")
        for rule, caller in ranked
    ]
    table = [(what, *_HEAD), *((*row, caller.caller) for row, (_, caller) in zip(cells, ranked, strict=True))]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    for number, since, last, rule, caller in table:
        line = f"{number:>{widths[0]}}  {since:<{widths[1]}}  {last:<{widths[2]}}  {rule:<{widths[3]}}  {caller}"
        yield line.rstrip()


def _number(caller: Caller, examined: float) -> str:
    """`12`; `~12` where calls were sampled; `12-3+4` where it may be 3 too many or 4 too few."""
    error = (f"-{caller.error}" if caller.error else "") + (f"+{caller.missing}" if caller.missing else "")
    return ("~" if examined < 1 else "") + str(caller.calls) + error


def _time(at_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at_s))
