"""Draws a panel of lines in the layout of Grafana's dark theme, where there is no Grafana to photograph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from observability.grafana.queries import Panel, Prometheus, Query, interpolate, legend

STEP_S = 5
NOTE = "drawn by scripts/pictures.py from the dashboard's own query"

_BACKGROUND, _BORDER, _TEXT, _FAINT, _GRID, _LINK = "#181b1f", "#2e3136", "#ccccdc", "#8e8e99", "#26292e", "#6e9fff"
_PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#ff9830")
_UNITS = {"reqps": " req/s", "none": "", "s": " s"}
_WIDTH_PX, _DPI = 1200, 100
# Heights in pixels, from the top: the title, the graph, its times, then a line a series.
_TITLE_PX, _GRAPH_PX, _TIMES_PX, _ROW_PX, _FOOT_PX = 44, 250, 34, 22, 12
_LEFT_PX, _RIGHT_PX, _LAST_PX, _MEAN_PX = 78, 20, 1184, 1084


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series of a panel: its name in the legend, and its values by Unix time."""

    name: str
    values: Mapping[float, float]


def lines(prometheus: Prometheus, panel: Panel, chosen: Mapping[str, str], start_s: float, end_s: float) -> list[Line]:
    """What the panel's queries return for a range of time; in order of name, as the colours are given."""
    found = [line for query in panel.queries for line in _series(prometheus, query, chosen, start_s, end_s)]
    return sorted(found, key=lambda line: line.name)


def _series(
    prometheus: Prometheus, query: Query, chosen: Mapping[str, str], start_s: float, end_s: float
) -> list[Line]:
    expr = interpolate(query.expr, chosen)
    answer = prometheus.get("query_range", query=expr, start=str(start_s), end=str(end_s), step=str(STEP_S))
    return [
        Line(
            name=legend(query.legend, row["metric"]),
            values={at: float(value) for at, value in row["values"] if math.isfinite(float(value))},
        )
        for row in answer["result"]
    ]


def draw(panel: Panel, shown: Sequence[Line], start_s: float, end_s: float) -> Figure:
    """The panel with these lines; times are UTC."""
    height_px = _TITLE_PX + _GRAPH_PX + _TIMES_PX + _ROW_PX * (len(shown) + 1) + _FOOT_PX
    figure = Figure(figsize=(_WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    figure.patch.set_edgecolor(_BORDER)
    figure.patch.set_linewidth(2)

    def write(text: str, x_px: float, y_px: float, *, color: str = _TEXT, size: float = 9, right: bool = False) -> None:
        """Text at a point that is counted from the top left."""
        align = "right" if right else "left"
        at = (x_px / _WIDTH_PX, 1 - y_px / height_px)
        figure.text(*at, text, color=color, size=size, ha=align, va="center")

    write(panel.title, 16, 22, size=11.5)
    write(NOTE, _LAST_PX, 22, color=_FAINT, size=8, right=True)
    axes = figure.add_axes(
        (
            _LEFT_PX / _WIDTH_PX,
            1 - (_TITLE_PX + _GRAPH_PX) / height_px,
            1 - (_LEFT_PX + _RIGHT_PX) / _WIDTH_PX,
            _GRAPH_PX / height_px,
        )
    )
    _plot(axes, panel, shown)
    _style(axes, panel.unit, start_s, end_s)
    y_px = _TITLE_PX + _GRAPH_PX + _TIMES_PX + _ROW_PX / 2
    for heading, x_px, right in (("Name", 16, False), ("Mean", _MEAN_PX, True), ("Last *", _LAST_PX, True)):
        write(heading, x_px, y_px, color=_LINK, right=right)
    for line, color in zip(shown, _colors(shown), strict=True):
        y_px += _ROW_PX
        y = 1 - y_px / height_px
        figure.add_artist(Line2D([16 / _WIDTH_PX, 30 / _WIDTH_PX], [y, y], color=color, linewidth=3.5))
        write(line.name, 38, y_px)
        values = list(line.values.values())
        for number, x_px in ((fmean(values), _MEAN_PX), (values[-1], _LAST_PX)) if values else ():
            write(_with_unit(number, panel.unit), x_px, y_px, right=True)
    return figure


def _plot(axes: Axes, panel: Panel, shown: Sequence[Line]) -> None:
    base: dict[float, float] = {}
    for line, color in zip(shown, _colors(shown), strict=True):
        times = sorted(line.values)
        low = [base.get(at, 0.0) if panel.stacked else 0.0 for at in times]
        high = [bottom + line.values[at] for bottom, at in zip(low, times, strict=True)]
        base.update(zip(times, high, strict=True))
        axes.plot(times, high, color=color, linewidth=1.2)
        axes.fill_between(times, low, high, color=color, alpha=0.25 if panel.stacked else 0.08, linewidth=0)


def _style(axes: Axes, unit: str, start_s: float, end_s: float) -> None:
    axes.set_facecolor(_BACKGROUND)
    axes.set_xlim(start_s, end_s)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    axes.grid(color=_GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, labelsize=8.5, length=0, pad=6)
    axes.xaxis.set_major_locator(MultipleLocator(30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _with_unit(value, unit)))
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colors(shown: Sequence[Line]) -> list[str]:
    return [_PALETTE[i % len(_PALETTE)] for i in range(len(shown))]


def _with_unit(value: float, unit: str) -> str:
    """As Grafana writes it: three digits that count, and the unit."""
    return f"{value:.3g}{_UNITS[unit]}"
