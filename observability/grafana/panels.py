"""The kinds of panels that the dashboards have."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeValueMode,
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

# Whichever the reader chooses, so that the file can be imported into any Grafana.
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")

# A PromQL expression and the legend of its series.
Query = tuple[str, str]
Panel = Stat | TimeSeries | BarGauge | StateTimeline


def _target(index: int, expr: str, legend: str) -> Dataquery:
    return Dataquery().ref_id(chr(ord("A") + index)).datasource(PROMETHEUS).expr(expr).legend_format(legend)


def _thresholds(steps: Sequence[tuple[float | None, str]]) -> ThresholdsConfig:
    colors = [Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(colors)


def lines(
    title: str, description: str, unit: str, *queries: Query, span: int = 12, stacked: bool = False
) -> TimeSeries:
    """Lines over time; stacked where their sum means something."""
    panel = (
        TimeSeries()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for i, (expr, legend) in enumerate(queries):
        panel.with_target(_target(i, expr, legend).range())
    return panel.stacking(StackingConfig().mode(StackingMode.NORMAL)) if stacked else panel


def number(title: str, description: str, unit: str, expr: str, *steps: tuple[float | None, str], span: int = 4) -> Stat:
    """One number; `steps` are (from this value on, this colour), the first from None."""
    return (
        Stat()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(span)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps or ((None, "green"),)))
        .with_target(_target(0, expr, "").range())
    )


def ranking(title: str, description: str, expr: str, legend: str, link: tuple[str, str], *, span: int = 12) -> BarGauge:
    """Bars, the longest first, of one value a series for the whole range of time; `link` is (title, URL)."""
    where = DashboardLink(link[0]).type(DashboardLinkType.LINK).url(link[1]).target_blank(target_blank=True)
    return (
        BarGauge()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit("none")
        .decimals(0)
        .min(0)
        .height(8)
        .span(span)
        .links([where])
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .value_mode(BarGaugeValueMode.TEXT)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds([(None, "orange")]))
        .with_target(_target(0, expr, legend).instant())
    )


def states(
    title: str, description: str, query: Query, names: Mapping[int, tuple[str, str]], *, span: int = 12
) -> StateTimeline:
    """The state of each series over time; `names` has the text and the colour of each value."""
    texts = {
        str(value): ValueMappingResult(text=text, color=color, index=value) for value, (text, color) in names.items()
    }
    return (
        StateTimeline()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit("none")
        .height(8)
        .span(span)
        .mappings([ValueMap(options=texts)])
        .show_value(VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(80)
        .with_target(_target(0, *query).range())
    )
