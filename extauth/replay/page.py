"""The result of a replay as one HTML page, which asks no other server for anything."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from extauth.errors import CommandError
from extauth.replay.chart import chart, html_text
from extauth.replay.report import View
from extauth.replay.table import (
    changes_in_words,
    counted,
    notes,
    rule_cells,
    rule_head,
    tier_cells,
    tier_head,
    total_rows,
)

MAX_ROWS = 500
MAX_RULE_CHARTS = 12

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de;
  --allowed: #4a90d9; --denied: #c4391d; --before: #1b1f24; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --text: #e6edf3; --quiet: #9aa5b1; --line: #38414b;
  --allowed: #3f7fc4; --denied: #ff7b5c; --before: #e6edf3; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p, li { max-width: 60rem; overflow-wrap: anywhere; }
.scroll { margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem; text-align: left; vertical-align: top; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.charts { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; }
figcaption { color: var(--quiet); }
svg { display: block; width: 100%; }
svg line { stroke: var(--line); }
svg text { fill: var(--quiet); font: 11px system-ui, sans-serif; }
.allowed { background: var(--allowed); fill: var(--allowed); }
.denied { background: var(--denied); fill: var(--denied); }
.before { fill: none; stroke: var(--before); stroke-width: 1.5; }
.key { display: inline-block; height: .8em; width: .8em; }
.key.line { background: var(--before); height: 2px; vertical-align: middle; width: 1.5em; }
"""


def write_page(path: Path, view: View) -> None:
    """Write the page; raises CommandError."""
    try:
        path.write_text(page(view), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from error


def page(view: View) -> str:
    """The page."""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>What if: {html_text(view['after']['config'])}</title><style>{_STYLE}</style></head><body><main>",
            *_summary(view),
            *_charts("Tiers", view, view["after"]["tiers"], "tier"),
            *_table("Tiers", [tier_head(view), *(tier_cells(row, view["before"]) for row in view["after"]["tiers"])]),
            *_rules(view),
            *_notes(view),
            "</main></body></html>\n",
        ]
    )


def _summary(view: View) -> Iterator[str]:
    after, changes = view["after"], view["changes"]
    yield f"<h1>What if: {html_text(after['config'])}</h1>"
    yield (
        f"<p>{counted(view['lines']['replayed'], 'request')} from {view['from']} to {view['to']}, "
        f"read from {html_text(', '.join(view['logs']))}.</p>"
    )
    yield from _table("Requests in all", total_rows(view))
    yield f"<p>Compared with <strong>{html_text(changes_in_words(view))}</strong>.</p>"
    if changes["first"]:
        yield "<p>Newly denied first:</p>"
        yield from _table(
            "Newly denied callers",
            [
                ["caller", "first denied at", "denied"],
                *([each["caller"], each["first_at"], str(each["denied"])] for each in changes["first"]),
            ],
        )


def _rules(view: View) -> Iterator[str]:
    rows = view["after"]["rules"]
    yield from _charts("Rules", view, rows[:MAX_RULE_CHARTS], "rule")
    yield from _table("Rules", [rule_head(view), *(rule_cells(row, view["before"]) for row in rows[:MAX_ROWS])])
    if len(rows) > MAX_ROWS:
        yield f"<p>{len(rows) - MAX_ROWS} more rules are only in the JSON report.</p>"


def _charts(heading: str, view: View, rows: Sequence[View], name: str) -> Iterator[str]:
    yield f"<h2>{heading}</h2>"
    if not rows:
        yield "<p>None applied.</p>"
        return
    yield '<p><span class="key allowed"></span> allowed <span class="key denied"></span> denied'
    yield ' <span class="key line"></span> denied before</p>' if view["before"] else "</p>"
    yield '<div class="charts">'
    buckets = _buckets(view)
    for row in rows:
        if row["timeline"] is None:
            continue
        title = row[name]
        before = _found(view["before"], f"{name}s", row, name)
        yield f"<figure><h3>{html_text(title)}</h3>{chart(title, row, before, buckets)}"
        yield f"<figcaption>{row['calls']} requests, {row['denied']} denied; per {_width(row)}</figcaption></figure>"
    yield "</div>"


def _notes(view: View) -> Iterator[str]:
    lines = list(notes(view))
    if lines:
        yield "<h2>Notes</h2><ul>"
        yield from (f"<li>{html_text(line.strip())}</li>" for line in lines)
        yield "</ul>"


def _table(label: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table, which can be scrolled sideways by keyboard too."""
    head, *body = rows
    if not body:
        return
    numbers = [all(cell.isdigit() or not cell for cell in column) for column in zip(*body, strict=True)]
    yield f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table><thead>'
    yield _row(head, numbers, "th")
    yield "</thead><tbody>"
    yield from (_row(row, numbers, "td") for row in body)
    yield "</tbody></table></div>"


def _row(cells: Iterable[str], numbers: Iterable[bool], tag: str) -> str:
    each = (
        f"<{tag}{' class=number' if number else ''}{' scope=col' if tag == 'th' else ''}>{html_text(cell)}</{tag}>"
        for cell, number in zip(cells, numbers, strict=True)
    )
    return f"<tr>{''.join(each)}</tr>"


def _buckets(view: View) -> int:
    """The number of buckets that the longest timeline has."""
    timelines = [row["timeline"] for side in (view["after"], view["before"]) if side for row in side["tiers"]]
    return max((bucket + 1 for each in timelines for bucket, _, _ in each["buckets"]), default=1)


def _found(side: View | None, rows: str, row: View, name: str) -> Any:  # noqa: ANN401 - a row of JSON's data
    if side is None:
        return None
    domain = row.get("domain")
    same = (each for each in side[rows] if each[name] == row[name] and each.get("domain") == domain)
    found = next(same, None)
    return found if found is not None and found["timeline"] is not None else None


def _width(row: View) -> str:
    seconds = row["timeline"]["bucket_s"]
    return "second" if seconds == 1 else f"{seconds} seconds"
