"""Requests over time as inline SVG: a stacked bar a bucket, denied on top of allowed."""

from datetime import datetime, timedelta
from html import escape

from extauth.replay.report import View

WIDTH, HEIGHT = 720, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 8, 20
_TICKS = 4


def chart(title: str, row: View, before: View | None, buckets: int) -> str:
    """The chart of a tier's or rule's timeline; a line shows how many were denied before, if that is known."""
    timeline = row["timeline"]
    bars = {bucket: (allowed, denied) for bucket, allowed, denied in timeline["buckets"]}
    earlier = None if before is None else {bucket: denied for bucket, _, denied in before["timeline"]["buckets"]}
    highest = max([sum(bar) for bar in bars.values()] + list((earlier or {}).values()) + [1])
    label = f"{title}: {row['allowed']} allowed, {row['denied']} denied, of {row['calls']}"
    parts = [
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{html_text(label)}">',
        *_axes(timeline, buckets, highest),
        *_bars(bars, buckets, highest),
    ]
    if earlier:
        parts.append(_line(earlier, buckets, highest))
    return "".join([*parts, "</svg>"])


def html_text(text: str) -> str:
    """Text for HTML; what no page should hold is shown as escapes."""
    printable = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return escape(printable)


def _x(bucket: float, buckets: int) -> float:
    return _LEFT + bucket * (WIDTH - _LEFT - _RIGHT) / buckets


def _y(number: float, highest: int) -> float:
    return HEIGHT - _BOTTOM - number * (HEIGHT - _TOP - _BOTTOM) / highest


def _bars(bars: dict[int, tuple[int, int]], buckets: int, highest: int) -> list[str]:
    parts = []
    wide = max(_x(1, buckets) - _x(0, buckets) - (0.5 if buckets > 60 else 1), 0.5)
    for bucket, (allowed, denied) in bars.items():
        left = f'x="{_x(bucket, buckets):.2f}" width="{wide:.2f}"'
        for kind, low, high in (("allowed", 0, allowed), ("denied", allowed, allowed + denied)):
            if high > low:
                top, bottom = _y(high, highest), _y(low, highest)
                parts.append(f'<rect class="{kind}" {left} y="{top:.2f}" height="{bottom - top:.2f}"/>')
    return parts


def _line(earlier: dict[int, int], buckets: int, highest: int) -> str:
    """The steps of what was denied before."""
    path = []
    for bucket in range(buckets):
        y = _y(earlier.get(bucket, 0), highest)
        path.append(f"{_x(bucket, buckets):.2f},{y:.2f} {_x(bucket + 1, buckets):.2f},{y:.2f}")
    return f'<polyline class="before" points="{" ".join(path)}"/>'


def _axes(timeline: View, buckets: int, highest: int) -> list[str]:
    begin = datetime.fromisoformat(timeline["begin"])
    width_s = timeline["bucket_s"]
    parts = []
    for number in sorted({0, highest // 2, highest}):
        y = _y(number, highest)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.2f}" text-anchor="end">{number}</text>')
    for tick in range(_TICKS + 1):
        bucket = buckets * tick / _TICKS
        anchor = "start" if tick == 0 else "end" if tick == _TICKS else "middle"
        at = begin + timedelta(seconds=bucket * width_s)
        shown = f"{at:%m-%d %H:%M}" if buckets * width_s > 86_400 else f"{at:%H:%M:%S}"
        parts.append(f'<text x="{_x(bucket, buckets):.2f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{shown}</text>')
    return parts
