"""The result of a replay as lines of text."""

from collections.abc import Iterator, Sequence
from typing import Any

from extauth.replay.report import View

MAX_ROWS = 50


def table_lines(view: View) -> Iterator[str]:
    """The report."""
    yield from summary_lines(view)
    after, before = view["after"], view["before"]
    if after["tiers"]:
        yield ""
        yield from aligned([tier_head(view), *(tier_cells(row, before) for row in after["tiers"])])
    if after["rules"]:
        yield ""
        rows = after["rules"]
        yield from aligned([rule_head(view), *(rule_cells(row, before) for row in rows[:MAX_ROWS])])
        if len(rows) > MAX_ROWS:
            yield f"{len(rows) - MAX_ROWS} more rules; --json has them all"
    yield from notes(view)


def summary_lines(view: View) -> Iterator[str]:
    """What was read, and what would change."""
    lines = view["lines"]
    yield f"{counted(lines['replayed'], 'request')} from {view['from']} to {view['to']}"
    yield from aligned(total_rows(view))
    yield f"compared with {changes_in_words(view)}"
    for caller in view["changes"]["first"]:
        yield f"  newly denied: {caller['caller']}, {counted(caller['denied'], 'time')}, first at {caller['first_at']}"


def total_rows(view: View) -> list[list[str]]:
    """What was decided by whom, with a head."""
    rows = [["", "allowed", "denied", "cannot be told"], ["as answered", *_numbers(view["answered"]), ""]]
    for side in (view["before"], view["after"]):
        if side is not None:
            untold = sum(each["calls"] for each in side["untold"])
            rows.append([side["config"], *_numbers(side), str(untold) if untold else ""])
    return rows if any(row[3] for row in rows[1:]) else [row[:3] for row in rows]


def changes_in_words(view: View) -> str:
    """`the log: 5 requests newly denied, of 1 caller; none newly allowed`."""
    changes = view["changes"]
    denied, allowed = changes["newly_denied"], changes["newly_allowed"]
    callers = f", of {counted(changes['newly_denied_callers'], 'caller')}" if denied else ""
    return (
        f"{changes['compared_with']}: {counted(denied, 'request') if denied else 'none'} newly denied{callers};"
        f" {counted(allowed, 'request') if allowed else 'none'} newly allowed"
    )


def tier_head(view: View) -> list[str]:
    """The head of the table of tiers."""
    return ["tier", "requests", "allowed", "denied", *(["denied before"] if view["before"] else []), "peak"]


def tier_cells(row: View, before: View | None) -> list[str]:
    """A row of the table of tiers."""
    earlier = [_denied_before(before["tiers"], row, "tier")] if before else []
    return [row["tier"], str(row["calls"]), *_numbers(row), *earlier, _peak(row)]


def rule_head(view: View) -> list[str]:
    """The head of the table of rules."""
    earlier = ["denied before"] if view["before"] else []
    return ["rule", "limit", "calls", "allowed", "denied", *earlier, "peak", "first denied"]


def rule_cells(row: View, before: View | None) -> list[str]:
    """A row of the table of rules."""
    earlier = [_denied_before(before["rules"], row, "domain", "rule")] if before else []
    limits = ", ".join(row["limits"]) + (f" ({row['tier']})" if row["tier"] else "")
    return [row["rule"], limits, str(row["calls"]), *_numbers(row), *earlier, _peak(row), _first(row)]


def notes(view: View) -> Iterator[str]:
    """What the reader must know about the numbers."""
    lines = view["lines"]
    for side in (view["before"], view["after"]):
        for each in side["untold"] if side is not None else ():
            yield f"{side['config']}: cannot be told: {counted(each['calls'], 'call')}: {each['reason']}"
    if lines["without_descriptors"]:
        yield f"{counted(lines['without_descriptors'], 'line')} without descriptors"
    if lines["malformed"]:
        yield f"{counted(lines['malformed'], 'malformed line')}:"
        yield from (f"  {each}" for each in view["malformed"])
        if lines["malformed"] > len(view["malformed"]):
            yield f"  and {lines['malformed'] - len(view['malformed'])} more"
    yield from (f"warning: {warning}" for warning in view["warnings"])


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows, their columns as wide as they need to be; whole numbers are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(cell.isdigit() or not cell for cell in column[1:]) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        yield "  ".join(cells).rstrip()


def counted(number: int, what: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _numbers(row: View) -> list[str]:
    return [str(row["allowed"]), str(row["denied"])]


def _denied_before(rows: list[View], row: View, *names: str) -> str:
    found: Any = next((each for each in rows if all(each[name] == row[name] for name in names)), None)
    return "" if found is None else str(found["denied"])


def _peak(row: View) -> str:
    peak = row["peak"]
    return f"{peak['calls_per_second']}/s at {peak['at'][11:19]}" if peak["at"] else ""


def _first(row: View) -> str:
    if row["first_denied"]:
        caller = row["first_denied"][0]
        return f"{caller['caller']} at {caller['first_at'][11:]}"
    return f"none; {row['over']} over" if row["over"] else ""
